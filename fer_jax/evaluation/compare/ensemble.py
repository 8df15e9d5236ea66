"""Several networks as one: the mean of their probabilities, and which of them to take."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_jax import tables
from fer_jax.evaluation import leakage_policy, plots
from fer_jax.evaluation.metrics import bootstrap, classification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PICTURE = "ensemble.png"


@dataclasses.dataclass(frozen=True)
class Choice:
    """Networks chosen one after the other.

    Attributes:
      order: int, their places among those that were there to choose from, in the order of the choice.
      accuracies: of the first, of the first two together, and so on, on the images chosen by.
    """

    order: list[int]
    accuracies: list[float]

    @property
    def best(self) -> int:
        """How many of the first to take: the fewest that reach the highest accuracy."""
        return int(np.argmax(self.accuracies)) + 1


def choose(probs: Sequence[np.ndarray], labels: np.ndarray, most: int) -> Choice:
    """Takes the network that raises the accuracy most, again and again (Caruana et al. 2004, no repeats).

    Between equals the one whose ensemble has the lower mean negative log-likelihood is taken.

    Args:
      probs: float [N, K] of each network.
      labels: int [N].
      most: how many to take at most.
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
    probs: Sequence[np.ndarray],
    labels: np.ndarray,
    groups: np.ndarray,
    most: int,
    *,
    repeats: int = 50,
    seed: int = 0,
) -> dict[str, float]:
    """What choosing networks is worth on images that had no part in the choice.

    The groups are halved at random, again and again: networks are chosen by one half and judged by the
    other, and so is the single network that is best by the first half. Where a network's best epoch was
    selected on the whole split, that stays in its figures.

    Args:
      probs, labels, most: as `choose` takes them.
      groups: int [N], one number for identical images, which stay together.
      repeats: how often.
      seed: of the halves.

    Returns:
      Mean accuracies on the other halves, "ensemble" and "single"; "gain", their difference, and
      "gain_95" [low, high], between which it lies in the middle 95 % of the halves.
    """
    rng = np.random.default_rng(seed)
    names = np.unique(groups)
    found = []
    for _ in range(repeats):
        first = np.isin(groups, rng.permutation(names)[: len(names) // 2])
        for here in (first, ~first):
            choice = choose([p[here] for p in probs], labels[here], most)
            members = choice.order[: choice.best]
            together = np.mean([probs[i][~here] for i in members], axis=0)
            found.append(
                (
                    classification.accuracy(together, labels[~here]),
                    classification.accuracy(probs[choice.order[0]][~here], labels[~here]),
                )
            )
    ensemble, single = np.mean(found, axis=0).tolist()
    gains = np.subtract(*np.transpose(found))
    middle = np.quantile(gains, (0.025, 0.975)).tolist()
    return {"ensemble": ensemble, "single": single, "gain": ensemble - single, "gain_95": middle}


def judge(
    probs: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray, most: int, take_all: bool = False
) -> dict[str, Any]:
    """An ensemble and its figures.

    Args:
      probs, labels, groups, most: as `chosen_elsewhere` takes them.
      take_all: take all networks, in their order, instead of choosing.

    Returns:
      "members" (places, in the order of the choice), "accuracies" (as `Choice` has them, of all that were
      looked at), "probs" float [N, K] of the ensemble, "figures" (accuracy, macro_f1, loss) with
      "interval_95" [low, high] of each, "best_single" (place and accuracy), and "elsewhere" from
      `chosen_elsewhere`, None where nothing was chosen.
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


def facts_of(names: Sequence[str], members: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """What a report says of an ensemble; None where it is not known of every member.

    Whatever had a part in a member's weights has one in the ensemble's.

    Args:
      names: of the members.
      members: what their reports say, see `report.write_report`.
    """
    if not all(facts.get("trained_data") and facts.get("parameters") for facts in members):
        return None
    first = members[0]
    facts = {key: first[key] for key in ("split", "data", "data_hash", "trained_data", "trained_data_hash")}
    facts |= {
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
        facts = leakage_policy.descend(facts, one | {"data": one["trained_data"]})
    return facts


def page(found: dict[str, Any], names: Sequence[str], split: str | None) -> list[str]:
    """The lines of a page on an ensemble.

    Args:
      found: from `judge`.
      names: of all networks.
      split: that they are judged on, None where it has no name.
    """
    where = f"`{split}`" if split else "one split"
    figures, between = found["figures"], found["interval_95"]
    rows = []
    for number, place in enumerate(found["order"], 1):
        taken = "yes" if number <= len(found["members"]) else ""
        accuracies = (found["single"][place], found["accuracies"][number - 1])
        rows.append((str(number), names[place], *(f"{100 * value:.2f}" for value in accuracies), taken))
    best = found["best_single"]
    lines = [
        f"{len(found['members'])} of {len(names)} networks on {where}, the mean of their probabilities: "
        f"accuracy {100 * figures['accuracy']:.2f} % (95 % {100 * between['accuracy'][0]:.2f} to "
        f"{100 * between['accuracy'][1]:.2f}), macro F1 {figures['macro_f1']:.3f}, "
        f"loss {figures['loss']:.3f}.",
        f"The best single one is {names[best['place']]} with {100 * best['accuracy']:.2f} %.",
        "",
        *tables.table(("", "network", "alone, %", "with those above, %", "taken"), rows),
    ]
    if len(found["members"]) == 1 < len(found["order"]):
        lines += ["", "No other network helps it: the ensemble is that network alone."]
    if elsewhere := found["elsewhere"]:
        lines += [
            "",
            f"The networks are chosen on {where}, so the figures on it are optimistic. Chosen by one half "
            "of its images and judged by the other, over random halves: "
            f"{100 * elsewhere['ensemble']:.2f} %, {100 * elsewhere['gain']:+.2f} points from the single "
            f"network chosen so (95 % of the halves: {100 * elsewhere['gain_95'][0]:+.2f} to "
            f"{100 * elsewhere['gain_95'][1]:+.2f}). That the networks' best epochs may have been selected "
            "on the split stays in both.",
        ]
    return lines


def plot(found: dict[str, Any], images: int, split: str | None, path: pathlib.Path) -> Figure:
    """Accuracy by the number of networks, beside that of each alone.

    Args:
      found: from `judge`.
      images, split: how many images of which split; None where it has no name.
      path: of the picture.
    """
    figure, axis = plots.new_figure(7, 4.2)
    counts = np.arange(1, len(found["order"]) + 1)
    together = 100 * np.array(found["accuracies"])
    alone = 100 * np.array([found["single"][place] for place in found["order"]])
    axis.plot(counts, together, "o-", color="C0", label="the first so many together")
    axis.plot(counts, alone, "s", color="0.6", label="each alone")
    taken = len(found["members"])
    axis.plot(counts[:taken], together[:taken], "o", color="C3", markersize=9, label="taken")
    of = f" of {split}" if split else ""
    axis.set_title(f"Accuracy of the ensemble on {images:,} images{of}", loc="left", fontsize=11)
    axis.set(xlabel="networks, in the order of the choice", ylabel="accuracy in percent", xticks=counts)
    axis.grid(alpha=0.3)
    axis.legend()
    figure.savefig(path, dpi=110)
    return figure
