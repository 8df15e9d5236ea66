"""What a change of the recipe is worth: figures over several seeds, differences with intervals, the page."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy  # whose parts load when they are used

from fer_jax import tables
from fer_jax.evaluation import plots, predictions_file
from fer_jax.evaluation.metrics import bootstrap, calibration, classification

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BASELINE = "baseline"
PICTURE = "differences.png"
FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "worst_recall": "recall of the worst class",
    "ece": "expected calibration error",
}


def compare(
    runs: Mapping[str, Sequence[np.ndarray]],
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    baseline: str = BASELINE,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """The `FIGURES` of every recipe, and how far they lie from those of a baseline.

    A difference is the mean over the seeds of a recipe's figure minus the baseline's under the same seed.
    Its interval counts two independent sources of chance: the images, whose variance is that of the paired
    bootstrap over groups of identical images, and the seeds, whose variance is that of a sample. The sum of
    both has Student's t distribution with Satterthwaite's degrees of freedom (1946, doi:10.2307/3002019):
    with few seeds that differ much the interval is wide. With one seed only the images vary.

    Args:
      runs: for each recipe, the baseline among them, the probabilities float [N, K] of its runs, seed by seed
        in one order.
      labels: int [N].
      groups: int [N], one number for identical images.
      baseline: its name.
      resamples: how many.
      seed: of the resampling.

    Returns:
      For each recipe and figure "values" (of each seed), their "mean", its "mean_interval_95" [low, high] in
      [0, 1], which no figure leaves, and their "std" (of a sample; None for one seed), and, but for the
      baseline, "difference" and its "interval_95" [low, high] in [-1, 1].

    Raises:
      ValueError: a recipe has another number of runs than the baseline, or as `classification.check`.
    """
    seeds = len(runs[baseline])
    figures = {}
    for name, probs in runs.items():
        if len(probs) != seeds:
            raise ValueError(
                f"{name} has {len(probs)} runs and {baseline} {seeds}: expected one for each seed"
            )
        figures[name] = [_figures(run, labels, groups, resamples, seed) for run in probs]
    result = {}
    for name in runs:
        result[name] = {}
        for figure in FIGURES:
            ours, theirs = (np.array([run[figure] for run in figures[n]]) for n in (name, baseline))
            values, apart = ours[:, 0], ours - theirs
            row = {
                "values": values.tolist(),
                "mean": values.mean().item(),
                "mean_interval_95": np.clip(_interval(ours), 0, 1).tolist(),
                "std": values.std(ddof=1).item() if seeds > 1 else None,
            }
            if name != baseline:
                row["difference"] = apart[:, 0].mean().item()
                row["interval_95"] = np.clip(_interval(apart), -1, 1).tolist()
            result[name][figure] = row
    return result


def _interval(apart: np.ndarray, level: float = 0.95) -> list[float]:
    """Of the mean, from values [S, 1 + R] of S seeds: of the images as they are, then of every resample."""
    seeds = len(apart)
    of_images = apart[:, 1:].mean(axis=0).var(ddof=1)
    of_seeds = apart[:, 0].var(ddof=1) / seeds if seeds > 1 else 0.0
    total = of_images + of_seeds
    freedom = (seeds - 1) * (total / of_seeds) ** 2 if of_seeds else np.inf
    reach = scipy.stats.t.ppf((1 + level) / 2, freedom) * np.sqrt(total)
    mean = apart[:, 0].mean()
    return [float(mean - reach), float(mean + reach)]


def figures_of(probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The `FIGURES` of probabilities [N, K] for labels int [N]."""
    classification.check(probs, labels)
    matrix = classification.confusion_matrix(probs, labels)
    scores, here = classification.scores(matrix), matrix.sum(axis=1) > 0
    return {
        "accuracy": float(scores["accuracy"]),
        "macro_f1": float(scores["macro_f1"]),
        "worst_recall": float(classification.per_class(matrix)["recall"][here].min()),
        "ece": float(calibration.ece(probs, labels)),
    }


def _figures(
    probs: np.ndarray, labels: np.ndarray, groups: np.ndarray, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """The `FIGURES` float64 [1 + R] of a run: of the images as they are, then of every resample."""
    plain = figures_of(probs, labels)
    drawn = bootstrap.resample(probs, labels, groups, resamples=resamples, seed=seed)
    here = np.bincount(labels, minlength=probs.shape[1]) > 0
    drawn["worst_recall"] = np.nanmin(drawn["recall"][:, here], axis=1)
    return {name: np.append(plain[name], drawn[name]) for name in FIGURES}


def read_reports(folders: Mapping[str, Sequence[pathlib.Path]]) -> tuple[dict[str, list[np.ndarray]], Any]:
    """The predictions in the reports of every recipe's runs.

    Args:
      folders: of the reports, for each recipe.

    Returns:
      The probabilities float [N, K] of each, and the predictions of the first, for labels and groups.

    Raises:
      ValueError: one is of other images or labels than the first.
    """
    runs: dict[str, list[np.ndarray]] = {}
    first = None
    for name, paths in folders.items():
        runs[name] = []
        for folder in paths:
            found = predictions_file.read(folder / "predictions.csv")
            first = first or found
            if found.ids != first.ids or (found.labels != first.labels).any():
                raise ValueError(
                    f"{folder} is of other images or labels than {next(iter(folders))}: use another --out"
                )
            runs[name].append(found.probs)
    return runs, first


def result_tables(result: Mapping[str, Mapping[str, Any]], seeds: Sequence[int]) -> list[str]:
    """The lines of a page: every recipe's figures, and their differences from the baseline's.

    Args:
      result: from `compare`.
      seeds: of the runs.
    """
    rows = [(name, *(_spread(row[key]) for key in FIGURES)) for name, row in result.items()]
    others = {name: row for name, row in result.items() if name != BASELINE}
    apart = [(name, *(difference(row[key]) for key in FIGURES)) for name, row in others.items()]
    columns = ("recipe", *FIGURES.values())
    return [
        f"In percent: mean ± standard deviation over the seeds {', '.join(map(str, seeds))}, and each "
        "seed's figure.",
        "",
        *tables.table(columns, rows),
        "",
        f"Difference from the {BASELINE} in points, with the 95 % interval over seeds and groups of "
        f"identical images; in bold where it leaves out 0. Of {len(others) * len(FIGURES)} intervals about "
        "one in twenty does so by chance alone.",
        "",
        *tables.table(columns, apart),
    ]


def _spread(row: Mapping[str, Any]) -> str:
    values = ", ".join(f"{100 * value:.2f}" for value in row["values"])
    spread = "" if row["std"] is None else f" ± {100 * row['std']:.2f}"
    return f"{100 * row['mean']:.2f}{spread} ({values})"


def with_interval(row: Mapping[str, Any]) -> str:
    """A mean in percent with its interval."""
    low, high = row["mean_interval_95"]
    return f"{100 * row['mean']:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def difference(row: Mapping[str, Any]) -> str:
    """A difference in points with its interval, in bold where that leaves out 0."""
    low, high = row["interval_95"]
    text = f"{100 * row['difference']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def plot_differences(result: Mapping[str, Mapping[str, Mapping[str, Any]]], path: pathlib.Path) -> Figure:
    """Every recipe's difference from the baseline with its interval, in points, one panel a figure.

    Args:
      result: from `compare`.
      path: of the picture.
    """
    recipes = [name for name in result if name != BASELINE]
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
            f"{title}\n({100 * result[BASELINE][key]['mean']:.1f}, {better} is better)", fontsize=10
        )
        axis.set_xlabel("difference in points")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(places, [name.replace("_", " ") for name in recipes])
    axes[0].set_ylim(-0.6, len(recipes) - 0.4)
    figure.suptitle(
        f"Difference from the {BASELINE} (its figure in brackets), with 95 % intervals", fontsize=11
    )
    figure.savefig(path, dpi=110)
    return figure
