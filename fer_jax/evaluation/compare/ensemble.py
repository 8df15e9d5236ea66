"""An ensemble of networks: the mean of their probabilities, and which networks to include."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from fer_jax import plotting, tables
from fer_jax.evaluation import leakage_policy
from fer_jax.evaluation.metrics import bootstrap, classification

PICTURE = "ensemble.png"
_HALVINGS = 50


@dataclasses.dataclass(frozen=True)
class Choice:
    """A greedy selection of networks.

    Attributes:
      order: indices of the networks, in the order in which they were selected.
      accuracies: of the first network, of the first two together, and so on, on the images of the selection.
    """

    order: list[int]
    accuracies: list[float]

    @property
    def best(self) -> int:
        """The number of networks to include: the fewest that reach the highest accuracy."""
        return int(np.argmax(self.accuracies)) + 1


def choose(probs: Sequence[np.ndarray], labels: np.ndarray, most: int) -> Choice:
    """Adds the network that raises the accuracy most, repeatedly (Caruana et al. 2004, without repeats).

    A tie goes to the network whose ensemble has the lower mean negative log-likelihood.

    Args:
      probs: float [N, K] of each network.
      labels: int [N].
      most: maximum number of networks.
    """
    left, order, accuracies = list(range(len(probs))), [], []
    total = np.zeros_like(probs[0])
    while left and len(order) < most:
        scores = []
        for place in left:
            mean = (total + probs[place]) / (len(order) + 1)
            scores.append((classification.accuracy(mean, labels), -classification.nll(mean, labels).mean()))
        at = max(range(len(left)), key=scores.__getitem__)
        accuracies.append(float(scores[at][0]))
        total = total + probs[left[at]]
        order.append(left.pop(at))
    return Choice(order, accuracies)


def chosen_elsewhere(
    probs: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray, most: int
) -> dict[str, Any]:
    """Estimates the accuracy of a selected ensemble on images that were not used for the selection.

    Repeatedly, the groups are split into random halves: the networks, and the best single network, are
    selected on one half and judged on the other. If a network's best epoch was selected on the whole split,
    its figures stay optimistic.

    Args:
      probs, labels, most: as `choose` takes them.
      groups: int [N], one number for identical images, which stay together.

    Returns:
      Mean accuracies on the other halves, "ensemble" and "single"; "gain", their difference, and
      "gain_95" [low, high], the interval that holds the middle 95 % of the gains.
    """
    rng = np.random.default_rng(0)
    names = np.unique(groups)
    found = []
    for _ in range(_HALVINGS):
        first = np.isin(groups, rng.permutation(names)[: len(names) // 2])
        for here in (first, ~first):
            choice = choose([p[here] for p in probs], labels[here], most)
            members = choice.order[: choice.best]
            candidates = np.mean([probs[i][~here] for i in members], axis=0), probs[choice.order[0]][~here]
            found.append([classification.accuracy(p, labels[~here]) for p in candidates])
    ensemble, single = np.mean(found, axis=0).tolist()
    gains = np.subtract(*np.transpose(found))
    middle = np.quantile(gains, (0.025, 0.975)).tolist()
    return {"ensemble": ensemble, "single": single, "gain": ensemble - single, "gain_95": middle}


def judge(
    probs: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray, most: int, take_all: bool = False
) -> dict[str, Any]:
    """Selects an ensemble and computes its figures.

    Args:
      probs, labels, groups, most: as `chosen_elsewhere` takes them.
      take_all: include all networks, in their order, instead of selecting.

    Returns:
      "members" (indices, in the order of selection), "order" and "accuracies" (those of `Choice`), "probs"
      float [N, K] of the ensemble, "figures" (accuracy, macro_f1, loss) with "interval_95" [low, high] of
      each, "single" (the accuracy of each network), "best_single" (place and accuracy), and "elsewhere" from
      `chosen_elsewhere`, None if nothing was selected.
    """
    if take_all:
        means = np.cumsum(probs, axis=0) / np.arange(1, len(probs) + 1)[:, None, None]
        accuracies = [float(classification.accuracy(mean, labels)) for mean in means]
        choice, count = Choice(list(range(len(probs))), accuracies), len(probs)
    else:
        choice = choose(probs, labels, most)
        count = choice.best
    together = np.mean([probs[i] for i in choice.order[:count]], axis=0)
    drawn = bootstrap.resample(together, labels, groups)
    scores = classification.scores(classification.confusion_matrix(together, labels))
    figures = {name: float(scores[name]) for name in ("accuracy", "macro_f1")}
    figures["loss"] = float(classification.nll(together, labels).mean())
    single = [float(classification.accuracy(p, labels)) for p in probs]
    return {
        "members": choice.order[:count],
        "order": choice.order,
        "accuracies": choice.accuracies,
        "probs": together,
        "figures": figures,
        "interval_95": {name: bootstrap.interval(drawn[name]).tolist() for name in figures},
        "single": single,
        "best_single": {"place": int(np.argmax(single)), "accuracy": max(single)},
        "elsewhere": None if take_all else chosen_elsewhere(probs, labels, groups, most),
    }


def metadata_of(names: Sequence[str], members: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the metadata for the report of an ensemble; None unless every member has its own.

    The ensemble inherits every influence on a member's weights.

    Args:
      names: of the members.
      members: the metadata of their reports, see `report.write_report`.
    """
    if not all(metadata.get("trained_data") and metadata.get("parameters") for metadata in members):
        return None
    first = members[0]
    same = ("split", "data", "data_hash", "trained_data", "trained_data_hash")
    metadata = {key: first[key] for key in same}
    metadata |= {
        "emotions": first["emotions"],
        "labels": first["labels"],
        "model": {"name": f"ensemble of {len(members)}", "kwargs": {"members": list(names)}},
        "checkpoint": "the mean of " + ", ".join(names),
        "parameters": sum(one["parameters"] for one in members),
        "tta": ", ".join(dict.fromkeys(one["tta"] for one in members)),
        "ema": all(one.get("ema") for one in members),
        "annotations": [],
        "ancestors": [],
    }
    for one in members:
        metadata = leakage_policy.inherit(metadata, one | {"data": one["trained_data"]})
    return metadata


def page(found: dict[str, Any], names: Sequence[str], split: str | None, runs: Sequence[str] = ()) -> str:
    """Returns the page on an ensemble.

    Args:
      found: from `judge`.
      names: of all networks.
      split: on which they are judged, None if it has no name.
      runs: the members' run directories, if they can teach one network.
    """
    known = {"found": found, "names": names, "split": split, "runs": tuple(runs)}
    return tables.render(__package__, "ensemble.md.j2", **known)


def plot(found: dict[str, Any], images: int, split: str | None, path: pathlib.Path) -> "plotting.Figure":
    """Draws the accuracy by the number of networks, and that of each alone.

    Args:
      found: from `judge`.
      images, split: the number of images, and their split, None if it has no name.
      path: of the picture.
    """
    figure, axis = plotting.new_figure(7, 4.2)
    counts = np.arange(1, len(found["order"]) + 1)
    together = 100 * np.array(found["accuracies"])
    alone = 100 * np.array([found["single"][place] for place in found["order"]])
    axis.plot(counts, together, "o-", color="C0", label="together, up to this one")
    axis.plot(counts, alone, "s", color="0.6", label="each alone")
    taken = len(found["members"])
    axis.plot(counts[:taken], together[:taken], "o", color="C3", markersize=9, label="included")
    of = f" of {split}" if split else ""
    axis.set_title(f"Accuracy of the ensemble on {images:,} images{of}", loc="left", fontsize=11)
    axis.set(xlabel="networks, in the order of selection", ylabel="accuracy in percent", xticks=counts)
    axis.grid(alpha=0.3)
    axis.legend()
    return plotting.save(figure, path)
