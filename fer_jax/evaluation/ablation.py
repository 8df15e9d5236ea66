"""What a change of the recipe is worth: figures over several seeds, and differences with intervals."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from fer_jax.evaluation import plots, statistics

FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "worst_recall": "recall of the worst class",
    "ece": "expected calibration error",
}
BINS = 15


def compare(
    runs: Mapping[str, Sequence[np.ndarray]],
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    baseline: str = "baseline",
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """The `FIGURES` of every recipe, and how far they lie from the baseline's.

    A difference is the mean over the seeds of a recipe's figure minus the baseline's under the same seed.
    Its interval is the percentile bootstrap of that mean over seeds and images both (the pigeonhole
    bootstrap of Owen 2007, doi:10.1214/07-AOAS122): a resample draws as many seeds as there are, and as many
    groups of identical images, and looks at all recipes under the same ones. With one seed only the images
    vary.

    Args:
      runs: for each recipe the probabilities float [N, K] of its runs, seed by seed in one order.
      labels: int [N].
      groups: int [N], one number for identical images.
      baseline: the recipe to compare with.
      resamples: how many.
      seed: of the resampling.

    Returns:
      For each recipe and figure "values" (of each seed), their "mean" and "std" (of a sample; None for one
      seed), and, but for the baseline, "difference" and its "interval_95" [low, high].

    Raises:
      ValueError: a recipe has another number of runs than the baseline, or as `statistics.check`.
    """
    groups = np.unique(groups, return_inverse=True)[1]
    count = groups.max() + 1
    seeds = len(runs[baseline])
    rng = np.random.default_rng(seed)
    drawn_groups = rng.multinomial(count, np.full(count, 1 / count), size=resamples)
    drawn_seeds = rng.integers(seeds, size=(resamples, seeds))
    weights = np.concatenate([np.ones((1, count)), drawn_groups])  # the images as they are come first
    figures = {}
    for name, probs in runs.items():
        if len(probs) != seeds:
            raise ValueError(
                f"{name} has {len(probs)} runs and {baseline} {seeds}: expected one for each seed"
            )
        figures[name] = [_figures(weights @ _sums(run, labels, groups), run.shape[1]) for run in probs]
    result = {}
    for name in runs:
        result[name] = {}
        for figure in FIGURES:
            ours, theirs = (np.array([run[figure] for run in figures[n]]) for n in (name, baseline))
            values, apart = ours[:, 0], ours - theirs
            row = {
                "values": values.tolist(),
                "mean": values.mean().item(),
                "std": values.std(ddof=1).item() if seeds > 1 else None,
            }
            if name != baseline:
                resampled = apart[drawn_seeds, np.arange(1, resamples + 1)[:, None]].mean(axis=1)
                row["difference"] = apart[:, 0].mean().item()
                row["interval_95"] = np.quantile(resampled, [0.025, 0.975]).tolist()
            result[name][figure] = row
    return result


def _sums(probs: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """float64 [G, K * K + BINS]: what of each group adds up to all figures.

    The entries of the confusion matrix, and for each bin of confidence how far being right exceeds it.
    """
    statistics.check(probs, labels)
    classes, predicted, confidence = probs.shape[1], probs.argmax(axis=1), probs.max(axis=1)
    sums = np.zeros((groups.max() + 1, classes**2 + BINS))
    np.add.at(sums, (groups, labels * classes + predicted), 1)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    np.add.at(sums, (groups, classes**2 + bins), (predicted == labels) - confidence)
    return sums


def _figures(sums: np.ndarray, classes: int) -> dict[str, np.ndarray]:
    """The `FIGURES` [R] of sums over images [R, K * K + BINS]; classes without images are left out."""
    matrices = sums[:, : classes**2].reshape(-1, classes, classes)
    scores, total = statistics.per_class(matrices), matrices.sum(axis=(1, 2))
    here = scores["support"] > 0
    seen = here | (scores["predicted"] > 0)
    return {
        "accuracy": np.trace(matrices, axis1=1, axis2=2) / total,
        "macro_f1": scores["f1"].sum(axis=1) / seen.sum(axis=1),
        "worst_recall": np.where(here, scores["recall"], 1).min(axis=1),
        "ece": abs(sums[:, classes**2 :]).sum(axis=1) / total,
    }


def plot_differences(
    result: Mapping[str, Mapping[str, Mapping[str, Any]]], path: pathlib.Path, *, baseline: str = "baseline"
) -> Figure:
    """Every recipe's difference from the baseline with its interval, in points, one panel a figure.

    Args:
      result: from `compare`.
      path: of the picture.
      baseline: what was compared with.
    """
    recipes = [name for name in result if name != baseline]
    height = 1.6 + 0.38 * max(len(recipes), 2)
    figure, axes = plots.new_figure(13, height, columns=len(FIGURES), sharey=True)
    places = np.arange(len(recipes))[::-1]
    for axis, (key, title) in zip(axes, FIGURES.items(), strict=True):
        for place, name in zip(places, recipes, strict=True):
            row = result[name][key]
            low, high = (100 * bound for bound in row["interval_95"])
            clear = low > 0 or high < 0
            better = (row["difference"] > 0) != (key == "ece")
            color = ("C2" if better else "C3") if clear else "0.5"
            axis.plot([low, high], [place, place], color=color, linewidth=2)
            axis.plot(100 * row["difference"], place, "o", color=color, markersize=5)
        axis.axvline(0, color="0.4", linestyle="--", linewidth=1)
        better = "lower" if key == "ece" else "higher"
        axis.set_title(
            f"{title}\n({100 * result[baseline][key]['mean']:.1f}, {better} is better)", fontsize=10
        )
        axis.set_xlabel("difference in points")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(places, [name.replace("_", " ") for name in recipes])
    axes[0].set_ylim(-0.6, len(recipes) - 0.4)
    figure.suptitle(
        f"Difference from the {baseline} (its figure in brackets), with 95 % intervals", fontsize=11
    )
    figure.savefig(path, dpi=110)
    return figure
