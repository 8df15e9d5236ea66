"""Compares models on the same images: metrics, pairwise tests, and seeds.

Intervals are from `bootstrap`, with the same resamples for all models.
"""

import itertools
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy  # its submodules load on first use

from fer_jax.evaluation import leakage_policy
from fer_jax.evaluation.compare.model_results import ModelResult
from fer_jax.evaluation.metrics import bootstrap, classification
from fer_jax.evaluation.report import report

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "loss", "brier", "ece")
LEAK_FREE = ("without_identical", "without_near")


def compare(results: Sequence[ModelResult]) -> dict[str, Any]:
    """Computes the content of compare.json from the results of `model_results.load`.

    Returns:
      'split' (None if unknown), 'num_examples', 'bootstrap' (as in a report);
      'copies', the number of images with an identical or near duplicate in the training or selection data of
        any model for which these are known;
      'models', a list: 'name', metadata about training (None if unknown), 'notes', `FIGURES` and their
        'interval_95', and for each of `LEAK_FREE` the same metrics without duplicates (None if unknown);
      'pairs', see `pair`, each with 'mcnemar_holm', the p-value adjusted for the number of pairs;
      'seeds', see `by_seed`;
      'front', see `pareto_front`.
    """
    labels, groups = results[0].predictions.labels, results[0].predictions.groups
    known = [one.predictions.copies for one in results if one.predictions.copies is not None]
    copies = np.max(known, axis=0) if known else None
    drawn = [bootstrap.resample(one.predictions.probs, labels, groups) for one in results]
    models = [_model(one, resamples, copies) for one, resamples in zip(results, drawn, strict=True)]
    pairs: list[dict[str, Any]] = [
        {"first": results[a].name, "second": results[b].name}
        | pair(results[a].predictions.probs, results[b].predictions.probs, labels, drawn[a], drawn[b])
        for a, b in itertools.combinations(range(len(results)), 2)
    ]
    for row, adjusted in zip(pairs, holm([row["mcnemar"] for row in pairs]), strict=True):
        row["mcnemar_holm"] = adjusted
    return {
        "split": results[0].metadata.get("split"),
        "num_examples": len(labels),
        "bootstrap": {
            "resamples": bootstrap.RESAMPLES,
            "unit": "images" if groups is None else "groups of identical images",
        },
        "copies": leakage_policy.count_copies(copies),
        "models": models,
        "pairs": pairs,
        "seeds": by_seed(results, models),
        "front": pareto_front(models),
    }


def _model(model: ModelResult, drawn: dict[str, np.ndarray], copies: np.ndarray | None) -> dict[str, Any]:
    found, metadata = model.predictions, model.metadata
    latency = (metadata.get("cost") or {}).get("latency")
    row = {
        "name": model.name,
        "model": (metadata.get("model") or {}).get("name"),
        "parameters": metadata.get("parameters"),
        "flops": (metadata.get("cost") or {}).get("flops"),
        "latency": latency,
        "run": metadata.get("run"),
        "seed": metadata.get("seed"),
        "tta": metadata.get("tta"),
        "notes": _notes(model),
    } | _part(report.headline_figures(found.probs, found.labels, drawn))
    parts = dict.fromkeys(LEAK_FREE)
    if found.copies is not None and copies is not None:
        parts = report.leak_free(found.probs, found.labels, found.groups, copies)
    return row | {name: part and _part(part) for name, part in parts.items()}


def _part(found: dict[str, Any]) -> dict[str, Any]:
    return {"num_examples": found["num_examples"]} | report.select(found, FIGURES)


def _notes(model: ModelResult) -> list[str]:
    """Returns warnings about comparing this model with others."""
    metadata, notes = model.metadata, list(model.notes)
    if metadata:
        judged = leakage_policy.assess(metadata, model.predictions.copies)
        if judged["trained_on_this_split"]:
            notes.append("trained on this split")
        elif judged["selected_on_this_split"]:
            notes.append("selected on this split")
        elif judged["selected_on_this_split"] is None:
            notes.append("unknown whether this split was used in training")
    else:
        notes.append("training unknown")
    if metadata.get("annotations"):
        notes.append(f"extra annotations: {', '.join(metadata['annotations'])}")
    return notes


def pair(
    first: np.ndarray,
    second: np.ndarray,
    labels: np.ndarray,
    drawn_first: dict[str, np.ndarray],
    drawn_second: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Compares two models by probabilities float [N, K] and draws of `bootstrap.resample` with the same seed.

    Returns:
      'only_first' and 'only_second', the number of images that only that model classifies correctly;
      'mcnemar', the two-sided p-value of McNemar's exact test; for accuracy and macro_f1 a dictionary of
      'difference' (first - second), and 'interval_95' and 'p' by the paired bootstrap.
    """
    right, right_second = (probs.argmax(axis=1) == labels for probs in (first, second))
    only_first, only_second = int((right & ~right_second).sum()), int((right_second & ~right).sum())
    p_value = mcnemar(only_first, only_second)
    result: dict[str, Any] = {"only_first": only_first, "only_second": only_second, "mcnemar": p_value}
    ours, theirs = (
        classification.scores(classification.confusion_matrix(probs, labels)) for probs in (first, second)
    )
    for key in ("accuracy", "macro_f1"):
        apart = drawn_first[key] - drawn_second[key]
        interval = bootstrap.interval(apart).tolist()
        difference = float(ours[key]) - float(theirs[key])
        result[key] = {"difference": difference, "interval_95": interval, "p": bootstrap.p_value(apart)}
    return result


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns the two-sided p-value of McNemar's exact test (1947, doi:10.1007/BF02295996).

    Under the null hypothesis, images that only one model classifies correctly are equally likely for both.
    """
    total = only_first + only_second
    return float(scipy.stats.binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusts p-values for multiple testing, controlling the family-wise error rate.

    Holm's step-down method (1979, doi:10.2307/4615733): multiplies the smallest p-value by their number, the
    next by one less, and so on, keeping them monotonic.
    """
    order, least, adjusted = np.argsort(p_values, kind="stable"), 0.0, [1.0] * len(p_values)
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = float(least)
    return adjusted


def by_seed(results: Sequence[ModelResult], models: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Summarizes models (results and, in the same order, metrics) that differ only in their seed.

    Returns:
      For each group of two or more: 'name', 'members' (names), 'seeds', and for each of `FIGURES`, and for
      the accuracy of each of `LEAK_FREE` if all have it, 'values', 'mean', and 'std' (of a sample). A run
      that is given twice, such as by its directory and as a stored result, counts once.
    """
    groups: dict[str, list[int]] = {}
    for i, model in enumerate(results):
        if model.metadata.get("config"):
            groups.setdefault(_recipe(model.metadata), []).append(i)
    result = []
    for places in groups.values():
        first: dict[Any, int] = {}
        for i in places:
            first.setdefault(results[i].metadata.get("seed"), i)
        if len(first) < 2:
            continue
        seeds, places = list(first), list(first.values())
        members = [results[i].name for i in places]
        row: dict[str, Any] = {"name": _common_name(members), "members": members, "seeds": seeds}
        figures = {key: [models[i][key] for i in places] for key in FIGURES}
        for key in LEAK_FREE:
            if all(models[i][key] for i in places):
                figures[key] = [models[i][key]["accuracy"] for i in places]
        for key, values in figures.items():
            mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
            row[key] = {"values": values, "mean": mean, "std": std}
        result.append(row)
    return result


def _recipe(metadata: dict[str, Any]) -> str:
    """Returns a key that is equal for runs that differ only in seed and data path."""
    config = {key: value for key, value in metadata["config"].items() if key not in ("seed", "data")}
    data = {key: value for key, value in (metadata["config"].get("data") or {}).items() if key != "dir"}
    same = (config, data, metadata.get("trained_data_hash"), metadata.get("tta"))
    return json.dumps(same, sort_keys=True)


def _common_name(names: Sequence[str]) -> str:
    """Returns the common prefix of the names, without the word seed and its separator."""
    return os.path.commonprefix(list(names)).rstrip("/_-. ").removesuffix("seed").rstrip("/_-. ") or names[0]


def pareto_front(models: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Returns, by hardware, the Pareto-optimal models in accuracy and latency, fastest first."""
    fronts: dict[str, list[str]] = {}
    measured = [row for row in models if row["latency"]]
    for row in sorted(measured, key=lambda r: (r["latency"]["milliseconds"], -r["accuracy"])):
        front = fronts.setdefault(row["latency"]["hardware"], [])
        best = max((other["accuracy"] for other in models if other["name"] in front), default=-1.0)
        if row["accuracy"] > best:
            front.append(row["name"])
    return fronts


def best_first(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the models sorted by accuracy, highest first."""
    return sorted(found["models"], key=lambda row: -row["accuracy"])


def images_of(found: dict[str, Any]) -> str:
    """Describes the images and their split in Markdown."""
    split = f" of `{found['split']}`" if found["split"] else ""
    return f"{found['num_examples']:,} images{split}"
