"""Predicts corrupted faces and measures how much accuracy is retained."""

import contextlib
import io
import itertools
import json
import pathlib
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from fer_jax.data.faces import LazyImages
from fer_jax.evaluation.metrics import bootstrap, classification
from fer_jax.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from fer_jax.io_utils import write_atomically

Predictions = dict[str, np.ndarray]  # probabilities [N, K] by condition: "clean", "jpeg/3", ...
CLEAN = "clean"


def condition(name: str, severity: int) -> str:
    """Returns the name of a condition: a corruption at a severity."""
    return f"{name}/{severity}"


def predict_all(
    predict: Callable[[Any], np.ndarray],
    images: Any,
    *,
    numbers: np.ndarray,
    seed: int = 0,
    keep: pathlib.Path | None = None,
) -> Predictions:
    """Predicts a split as it is, and under every corruption at every severity.

    Args:
      predict: (images, as in `batch_inference.predict`) -> probabilities float [N, K].
      images: uint8 [N, H, W, C], an array or an object with `shape` that integer arrays index.
      numbers: int [N], the number of each image, see `corruptions.corrupt`.
      seed: seed of the corruptions.
      keep: folder from `keep_for` to store predictions, so that another call resumes; None stores nothing.
    """

    def corrupted(name: str, severity: int) -> LazyImages:
        return LazyImages(
            images.shape,
            lambda index: corrupt(images[index], name, severity, seed=seed, numbers=numbers[index]),
        )

    conditions = {CLEAN: images}
    for name, severity in itertools.product(CORRUPTIONS, SEVERITIES):
        conditions[condition(name, severity)] = corrupted(name, severity)
    found = {}
    for key, shown in (bar := tqdm(conditions.items(), "corruptions")):
        bar.set_postfix_str(key)
        file = keep and keep / f"{key.replace('/', '_')}.npy"
        if file and file.is_file():
            with contextlib.suppress(EOFError, ValueError):  # damaged: predicted again
                found[key] = np.load(file)
                continue
        found[key] = predict(shown)
        if file:
            buffer = io.BytesIO()
            np.save(buffer, found[key])
            write_atomically(file, buffer.getvalue())
    return found


def keep_for(folder: pathlib.Path, what: Any) -> pathlib.Path:
    """Returns a folder for the predictions of `predict_all`, created, or emptied if it has others.

    `what` is JSON that identifies the predictions: weights, images, seed.
    """
    mark, text = folder / "of.json", json.dumps(what, sort_keys=True).encode()
    if not mark.is_file() or mark.read_bytes() != text:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_atomically(mark, text)
    return folder


def figures(predictions: Predictions, labels: np.ndarray, groups: np.ndarray | None) -> dict[str, Any]:
    """Computes accuracies with 95 % intervals, and their summary, from the result of `predict_all`.

    `groups`, int [N], are equal for images that are resampled together (see `splits.duplicate_groups`); None
    resamples single images.

    Returns:
      'clean'; 'corruptions': for each 'severities' (five, with 'level' and 'macro_f1'), 'mean' (over
      severities), and 'kept' (the ratio of that mean to the clean accuracy); 'mean_corruption_accuracy' and
      'kept': the same over all corruptions. Each metric is {'accuracy' or 'value', 'interval_95'}; all use
      the same resamples.
    """
    for probs in predictions.values():
        classification.check(probs, labels)
    keys = list(predictions)
    hits = np.stack([predictions[key].argmax(axis=1) == labels for key in keys], axis=1).astype(np.float64)
    *sums, counts = bootstrap.resample_sums(np.append(hits, np.ones((len(labels), 1)), axis=1), groups).T
    drawn = dict(zip(keys, np.array(sums) / counts, strict=True))
    exact = dict(zip(keys, hits.mean(axis=0), strict=True))

    def with_macro_f1(key: str) -> dict[str, Any]:
        scores = classification.scores(classification.confusion_matrix(predictions[key], labels))
        return _figure(exact[key], drawn[key], "accuracy") | {"macro_f1": float(scores["macro_f1"])}

    def summed(names: Sequence[str]) -> dict[str, Any]:
        wanted = [condition(name, severity) for name in names for severity in SEVERITIES]
        value, values = (np.mean([source[key] for key in wanted], axis=0) for source in (exact, drawn))
        share = classification.ratio  # 0 where the clean accuracy is 0
        kept = _figure(share(value, exact[CLEAN]), share(values, drawn[CLEAN]))
        return {"mean": _figure(value, values), "kept": kept}

    corruptions = {}
    for name, corruption in CORRUPTIONS.items():
        rows = []
        for severity, level in zip(SEVERITIES, corruption.levels, strict=True):
            rows.append({"level": level} | with_macro_f1(condition(name, severity)))
        corruptions[name] = {"severities": rows} | summed([name])
    overall = summed(list(CORRUPTIONS))
    return {
        "num_examples": len(labels),
        "clean": with_macro_f1(CLEAN),
        "corruptions": corruptions,
        "mean_corruption_accuracy": overall["mean"],
        "kept": overall["kept"],
        "resamples": bootstrap.RESAMPLES,
    }


def _figure(value: Any, values: np.ndarray, name: str = "value") -> dict[str, Any]:
    return {name: float(value), "interval_95": bootstrap.interval(values).tolist()}
