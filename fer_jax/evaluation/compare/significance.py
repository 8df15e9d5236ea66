"""Which of several models is better, on the same images: figures, pairs, seeds.

Intervals are those of `bootstrap`, in which all models are drawn alike.
"""

import itertools
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # whose parts load when they are used

from fer_jax.evaluation import leakage, leakage_policy
from fer_jax.evaluation.compare.model_results import ModelResult
from fer_jax.evaluation.metrics import bootstrap, classification
from fer_jax.evaluation.report import report

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "loss", "brier", "ece")
LEAK_FREE = ("without_identical", "without_near")


def compare(contenders: Sequence[ModelResult]) -> dict[str, Any]:
    """Everything that compare.json holds.

    Args:
      contenders: from `model_results.load`.

    Returns:
      'split' (None where no facts tell it), 'num_examples', 'bootstrap' (as in a report);
      'copies', how many images have an identical or a near copy in the training or selection of any of
        the models for which that is known;
      'models', a list: 'name', what is known of its making (None where it is not), 'notes', `FIGURES`
        and their 'interval_95', and for each of `LEAK_FREE` the same figures on the images without copies
        (None for a model whose copies are not known);
      'pairs', see `pair`, each with 'mcnemar_holm', the p-value adjusted for the number of pairs;
      'seeds', see `by_seed`;
      'front', the names of the models that no other beats in both accuracy and latency, of those measured
        on one hardware.
    """
    labels, groups = contenders[0].predictions.labels, contenders[0].predictions.groups
    known = [c.predictions.copies for c in contenders if c.predictions.copies is not None]
    copies = np.max(known, axis=0) if known else None
    drawn = [bootstrap.resample(c.predictions.probs, labels, groups) for c in contenders]
    models = [_model(c, resamples, copies) for c, resamples in zip(contenders, drawn, strict=True)]
    pairs = [
        {"first": contenders[a].name, "second": contenders[b].name}
        | pair(contenders[a].predictions.probs, contenders[b].predictions.probs, labels, drawn[a], drawn[b])
        for a, b in itertools.combinations(range(len(contenders)), 2)
    ]
    for row, adjusted in zip(pairs, holm([row["mcnemar"] for row in pairs]), strict=True):
        row["mcnemar_holm"] = adjusted
    return {
        "split": contenders[0].facts.get("split"),
        "num_examples": len(labels),
        "bootstrap": {
            "resamples": bootstrap.RESAMPLES,
            "unit": "images" if groups is None else "groups of identical images",
        },
        "copies": leakage_policy.count_copies(copies),
        "models": models,
        "pairs": pairs,
        "seeds": by_seed(contenders, models),
        "front": pareto_front(models),
    }


def _model(contender: ModelResult, drawn: dict[str, np.ndarray], copies: np.ndarray | None) -> dict[str, Any]:
    found, facts = contender.predictions, contender.facts
    latency = (facts.get("cost") or {}).get("latency")
    row = {
        "name": contender.name,
        "model": (facts.get("model") or {}).get("name"),
        "parameters": facts.get("parameters"),
        "flops": (facts.get("cost") or {}).get("flops"),
        "latency": latency,
        "run": facts.get("run"),
        "seed": facts.get("seed"),
        "tta": facts.get("tta"),
        "notes": _notes(contender),
    } | _part(found.probs, found.labels, drawn)
    for name in LEAK_FREE:
        kind = leakage.KINDS.index(name.removeprefix("without_"))
        kept = None if found.copies is None else copies < kind
        if kept is None or not kept.any():
            row[name] = None
            continue
        groups = None if found.groups is None else found.groups[kept]
        probs, labels = found.probs[kept], found.labels[kept]
        row[name] = _part(probs, labels, bootstrap.resample(probs, labels, groups))
    return row


def _part(probs: np.ndarray, labels: np.ndarray, drawn: dict[str, np.ndarray]) -> dict[str, Any]:
    found = report.headline_figures(probs, labels, drawn)
    kept = {key: found[key] for key in ("num_examples", *FIGURES)}
    return kept | {"interval_95": {key: found["interval_95"][key] for key in FIGURES}}


def _notes(contender: ModelResult) -> list[str]:
    """What a reader has to know before comparing this model with the others."""
    facts, notes = contender.facts, list(contender.notes)
    if facts:
        judged = leakage_policy.judge(facts, contender.predictions.copies)
        if judged["trained_on_this_split"]:
            notes.append("trained on this split")
        elif judged["selected_on_this_split"]:
            notes.append("selected on this split")
        elif judged["selected_on_this_split"] is None:
            notes.append("whether this split had a part in the training is not known")
    else:
        notes.append("nothing is known of the training")
    if facts.get("annotations"):
        notes.append(f"extra annotations: {', '.join(facts['annotations'])}")
    return notes


def pair(
    first: np.ndarray,
    second: np.ndarray,
    labels: np.ndarray,
    drawn_first: dict[str, np.ndarray],
    drawn_second: dict[str, np.ndarray],
) -> dict[str, Any]:
    """One model against another.

    Args:
      first, second: probabilities float [N, K].
      labels: int [N].
      drawn_first, drawn_second: from `bootstrap.resample`, by one seed and the same groups.

    Returns:
      'only_first' and 'only_second', how many images only the one has right; 'mcnemar', the two-sided
      p-value of McNemar's exact test; for accuracy and macro_f1 a dictionary of 'difference' (first -
      second) and 'interval_95' and 'p' by the paired bootstrap.
    """
    right, right_second = (probs.argmax(axis=1) == labels for probs in (first, second))
    only_first, only_second = int((right & ~right_second).sum()), int((right_second & ~right).sum())
    result = {
        "only_first": only_first,
        "only_second": only_second,
        "mcnemar": mcnemar(only_first, only_second),
    }
    for key in ("accuracy", "macro_f1"):
        apart = drawn_first[key] - drawn_second[key]
        values = [
            float(classification.scores(classification.confusion_matrix(probs, labels))[key])
            for probs in (first, second)
        ]
        result[key] = {
            "difference": values[0] - values[1],
            "interval_95": bootstrap.interval(apart).tolist(),
            "p": bootstrap.p_value(apart),
        }
    return result


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided p-value of McNemar's exact test (1947, doi:10.1007/BF02295996).

    Args:
      only_first, only_second: how many images only the one or only the other model has right, which under
        the hypothesis of equal accuracy are as likely as heads and tails.
    """
    total = only_first + only_second
    return float(scipy.stats.binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number: any false alarm below a level is as likely as that level at most.

    Holm's step-down method (1979, doi:10.2307/4615733): the smallest is multiplied by how many there are,
    the next by one less, and so on, never falling.
    """
    order, least, adjusted = np.argsort(p_values, kind="stable"), 0.0, [1.0] * len(p_values)
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = float(least)
    return adjusted


def by_seed(contenders: Sequence[ModelResult], models: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Models that differ only in the seed of their training.

    Args:
      contenders: whose facts hold the configuration and the data of the training.
      models: their figures, in the same order.

    Returns:
      For each group of two or more: 'name', 'members' (names), 'seeds', and for each of `FIGURES`, and the
      accuracy of each of `LEAK_FREE` where all have one, its 'values', 'mean' and 'std' (of a sample). A
      run that is given twice, such as by its directory and as a stored result, counts once.
    """
    groups: dict[str, list[int]] = {}
    for i, contender in enumerate(contenders):
        if contender.facts.get("config"):
            groups.setdefault(_recipe(contender.facts), []).append(i)
    result = []
    for places in groups.values():
        first: dict[Any, int] = {}
        for i in places:
            first.setdefault(contenders[i].facts.get("seed"), i)
        if len(first) < 2:
            continue
        seeds, places = list(first), list(first.values())
        members = [contenders[i].name for i in places]
        row = {"name": _common_name(members), "members": members, "seeds": seeds}
        figures = {key: [models[i][key] for i in places] for key in FIGURES}
        for key in LEAK_FREE:
            if all(models[i][key] for i in places):
                figures[key] = [models[i][key]["accuracy"] for i in places]
        for key, values in figures.items():
            mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
            row[key] = {"values": values, "mean": mean, "std": std}
        result.append(row)
    return result


def _recipe(facts: dict[str, Any]) -> str:
    """What two runs have in common that differ in nothing but the seed, and where their data lie."""
    config = {key: value for key, value in facts["config"].items() if key not in ("seed", "data")}
    data = {key: value for key, value in (facts["config"].get("data") or {}).items() if key != "dir"}
    same = (config, data, facts.get("trained_data_hash"), facts.get("tta"))
    return json.dumps(same, sort_keys=True)


def _common_name(names: Sequence[str]) -> str:
    """What the names begin with, without the word seed and what joins it."""
    return os.path.commonprefix(list(names)).rstrip("/_-. ").removesuffix("seed").rstrip("/_-. ") or names[0]


def pareto_front(models: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """By hardware, the models that none measured on it beats in both accuracy and latency; fastest first."""
    fronts: dict[str, list[str]] = {}
    measured = [row for row in models if row["latency"]]
    for row in sorted(measured, key=lambda r: (r["latency"]["milliseconds"], -r["accuracy"])):
        front = fronts.setdefault(row["latency"]["hardware"], [])
        best = max((other["accuracy"] for other in models if other["name"] in front), default=-1.0)
        if row["accuracy"] > best:
            front.append(row["name"])
    return fronts


def best_first(found: dict[str, Any]) -> list[dict[str, Any]]:
    """The models by accuracy."""
    return sorted(found["models"], key=lambda row: -row["accuracy"])


def images_of(found: dict[str, Any]) -> str:
    """How many images, and of which split."""
    split = f" of `{found['split']}`" if found["split"] else ""
    return f"{found['num_examples']:,} images{split}"


def hardware_of(found: dict[str, Any]) -> list[str]:
    """The hardware that latencies were measured on."""
    return list(dict.fromkeys(row["latency"]["hardware"] for row in found["models"] if row["latency"]))
