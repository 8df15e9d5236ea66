"""Selects and evaluates ensembles, which average the probabilities of networks."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fer_jax import plotting, tables
from fer_jax.evaluation import leakage_policy
from fer_jax.evaluation.metrics import bootstrap, classification
from fer_jax.evaluation.report import report

PICTURE = "ensemble.png"
_HALVINGS = 50


class Choice(NamedTuple):
    """A greedy selection of networks."""

    order: list[int]  # indices of the networks, in the order of selection
    # Accuracies of the first network, the first two together, and so on, on the selection images.
    accuracies: list[float]
    best: int  # the smallest number of networks that reaches the highest accuracy


def choose(probs: Sequence[np.ndarray], labels: np.ndarray, most: int) -> Choice:
    """Repeatedly adds the network that raises the accuracy most (Caruana et al. 2004, without repeats).

    `probs` are float [N, K] of each network. Ties go to the lower mean negative log-likelihood of the
    ensemble, which has at most `most` networks.
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
    return Choice(order, accuracies, int(np.argmax(accuracies)) + 1)


def chosen_elsewhere(
    probs: Sequence[np.ndarray], labels: np.ndarray, groups: np.ndarray, most: int
) -> dict[str, Any]:
    """Estimates the accuracy of a selected ensemble on images that were not used for the selection.

    Repeatedly splits the groups into random halves, selects an ensemble and the best single network on one
    half, and scores them on the other. Accuracies remain optimistic if a network's best epoch was selected on
    the entire split.

    Args:
      probs, labels, most: as in `choose`.
      groups: int [N], equal for identical images, which stay together.

    Returns:
      Mean accuracies on the other halves, "ensemble" and "single"; "gain", their difference; and "gain_95"
      [low, high], the central 95 % of the gains.
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
    """Selects an ensemble and computes its metrics.

    Args:
      probs, labels, groups, most: as in `chosen_elsewhere`.
      take_all: whether to include all networks, in their order, instead of selecting.

    Returns:
      "members" (indices, in the order of selection), "order" and "accuracies" (those of `Choice`), "probs"
      float [N, K] of the ensemble, "figures" (accuracy, macro_f1, loss) with "interval_95" [low, high] of
      each, "single" (the accuracy of each network), "best_single" (index and accuracy), and "elsewhere" from
      `chosen_elsewhere`, None without a selection.
    """
    if take_all:
        means = np.cumsum(probs, axis=0) / np.arange(1, len(probs) + 1)[:, None, None]
        accuracies = [float(classification.accuracy(mean, labels)) for mean in means]
        choice = Choice(list(range(len(probs))), accuracies, len(probs))
    else:
        choice = choose(probs, labels, most)
    members = choice.order[: choice.best]
    together = np.mean([probs[i] for i in members], axis=0)
    figures = report.headline_figures(together, labels, bootstrap.resample(together, labels, groups))
    figures = report.select(figures, ("accuracy", "macro_f1", "loss"))
    intervals = figures.pop("interval_95")
    single = [float(classification.accuracy(p, labels)) for p in probs]
    return {
        "members": members,
        "order": choice.order,
        "accuracies": choice.accuracies,
        "probs": together,
        "figures": figures,
        "interval_95": intervals,
        "single": single,
        "best_single": {"place": int(np.argmax(single)), "accuracy": max(single)},
        "elsewhere": None if take_all else chosen_elsewhere(probs, labels, groups, most),
    }


def metadata_of(names: Sequence[str], members: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Returns the metadata for the report of an ensemble; None unless every member has metadata.

    The ensemble inherits the data that influenced its members, whose metadata is as in `report.write_report`.
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
    """Returns the content of ensemble.md from the result of `judge` and the names of all networks.

    The page ends with how to distill the members' run directories, `runs`, if there are any.
    """
    known = {"found": found, "names": names, "split": split, "runs": tuple(runs)}
    return tables.render(__package__, "ensemble.md.j2", **known)


def plot(found: dict[str, Any], images: int, split: str | None, path: pathlib.Path) -> "plotting.Figure":
    """Plots the accuracy by the number of networks, and of each network alone, from the result of `judge`."""
    figure, axis = plotting.new_figure(7, 4.2)
    counts = np.arange(1, len(found["order"]) + 1)
    together = 100 * np.array(found["accuracies"])
    alone = 100 * np.array([found["single"][place] for place in found["order"]])
    axis.plot(counts, together, "o-", color="C0", label="ensemble up to this network")
    axis.plot(counts, alone, "s", color="0.6", label="each network alone")
    taken = len(found["members"])
    axis.plot(counts[:taken], together[:taken], "o", color="C3", markersize=9, label="included")
    of = f" of {split}" if split else ""
    axis.set_title(f"Accuracy of the ensemble on {images:,} images{of}", loc="left", fontsize=11)
    axis.set(xlabel="networks, in the order of selection", ylabel="accuracy in percent", xticks=counts)
    axis.grid(alpha=0.3)
    axis.legend()
    return plotting.save(figure, path)
