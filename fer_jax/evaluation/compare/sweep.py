"""Ranks trials, or compares them with a baseline: metrics with intervals, tables, and figures."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy  # its submodules load on first use

from fer_jax import plotting, tables
from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.metrics import bootstrap, calibration, classification

BASELINE = "baseline"
DIFFERENCES, RANKING = "differences.png", "sweep.png"
FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "worst_recall": "worst-class recall",
    "ece": "expected calibration error",
}
_MOST_TICKS = 8


def read_predictions(
    files: Mapping[str, Sequence[pathlib.Path]], emotions: Sequence[str] | None = None
) -> tuple[dict[str, list[np.ndarray]], predictions_file.Predictions]:
    """Reads the predictions of all runs, from a file per seed of each trial, as `predictions_file.read`.

    Returns:
      The probabilities float [N, K] by trial and seed, and the first run's predictions (for labels, groups).

    Raises:
      ValueError: two files differ in their images or labels.
    """
    runs: dict[str, list[np.ndarray]] = {}
    first: Any = None
    for name, paths in files.items():
        runs[name] = []
        for path in paths:
            found = predictions_file.read(path, emotions)
            first = first or found
            if found.ids != first.ids or (found.labels != first.labels).any():
                raise ValueError(f"{path} has other images or labels than the first run")
            runs[name].append(found.probs)
    return runs, first


def compare(
    runs: Mapping[str, Sequence[np.ndarray]],
    labels: np.ndarray,
    groups: np.ndarray | None,
    *,
    baseline: str | None = BASELINE,
    rank_by: str = "accuracy",
    resamples: int = 2000,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns the `FIGURES` of all trials, and their differences from a baseline.

    A difference is the mean, over seeds, of the trial's metric minus the baseline's with the same seed. Its
    interval accounts for two independent sources of variance: images (the paired bootstrap over groups of
    identical images) and seeds (the sample variance). It uses Student's t distribution with Satterthwaite's
    degrees of freedom (1946, doi:10.2307/3002019), so few seeds with large variance give wide intervals. With
    one seed, only the images vary.

    Args:
      runs: the probabilities float [N, K] of each trial's runs, in the same order of seeds.
      labels: int [N].
      groups: int [N], equal for identical images; None if unknown.
      baseline: the trial to compare with; None compares with the best and ranks all, best first.
      rank_by: one of the `FIGURES`.
      resamples: number of bootstrap resamples.

    Returns:
      For each trial and metric "values" (of each seed), their "mean", its "mean_interval_95" [low, high],
      clipped to [0, 1], their "std" (of a sample; None for one seed), and, except for the baseline,
      "difference" and its "interval_95" [low, high] in [-1, 1].

    Raises:
      ValueError: trials have different numbers of runs, or as `classification.check`.
    """
    first, *_ = runs
    seeds = len(runs[first])
    drawn = {}
    for name, probs in runs.items():
        if len(probs) != seeds:
            raise ValueError(f"{name} has {len(probs)} runs, but {first} has {seeds}: expected one per seed")
        drawn[name] = [_resampled_figures(run, labels, groups, resamples) for run in probs]
    if baseline is None:
        means = {name: np.mean([run[rank_by][0] for run in of]) for name, of in drawn.items()}
        runs = {name: runs[name] for name in sorted(runs, key=means.__getitem__, reverse=rank_by != "ece")}
        baseline = next(iter(runs))
    result: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in runs}
    for name, figure in itertools.product(runs, FIGURES):
        ours, theirs = (np.array([run[figure] for run in drawn[trial]]) for trial in (name, baseline))
        result[name][figure] = row = {
            "values": ours[:, 0].tolist(),
            "mean": ours[:, 0].mean().item(),
            "mean_interval_95": np.clip(_interval(ours), 0, 1).tolist(),
            "std": ours[:, 0].std(ddof=1).item() if seeds > 1 else None,
        }
        if name != baseline:
            row["difference"] = (ours - theirs)[:, 0].mean().item()
            row["interval_95"] = np.clip(_interval(ours - theirs), -1, 1).tolist()
    return result


def _resampled_figures(
    probs: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, resamples: int
) -> dict[str, np.ndarray]:
    """Returns the `FIGURES` of a run float64 [1 + R]: of the images, then of each resample."""
    classification.check(probs, labels)
    matrix = classification.confusion_matrix(probs, labels)
    plain = classification.scores(matrix) | {"ece": calibration.ece(probs, labels)}
    drawn = bootstrap.resample(probs, labels, groups, resamples=resamples, seed=0)
    present = matrix.sum(axis=1) > 0
    plain["worst_recall"] = np.nanmin(classification.per_class(matrix)["recall"][present])
    drawn["worst_recall"] = np.nanmin(drawn["recall"][:, present], axis=1)
    return {name: np.append(plain[name], drawn[name]) for name in FIGURES}


def _interval(figures: np.ndarray) -> list[float]:
    """Returns the 95 % interval of the mean of values [S, 1 + R] of S seeds, each with R resamples."""
    seeds, mean = len(figures), figures[:, 0].mean()
    of_images = figures[:, 1:].mean(axis=0).var(ddof=1)
    of_seeds = figures[:, 0].var(ddof=1) / seeds if seeds > 1 else 0.0
    total = of_images + of_seeds
    freedom = (seeds - 1) * (total / of_seeds) ** 2 if of_seeds else np.inf
    reach = scipy.stats.t.ppf(0.975, freedom) * np.sqrt(total)
    return [float(mean - reach), float(mean + reach)]


def result_tables(
    result: Mapping[str, Mapping[str, Any]], seeds: Sequence[int], baseline: str = BASELINE
) -> list[str]:
    """Returns the lines of the results page from `compare`: metrics, and differences from the baseline."""
    rows = [(name, *(_mean(row[key]) for key in FIGURES)) for name, row in result.items()]
    others = {name: row for name, row in result.items() if name != baseline}
    apart = [(name, *(_difference(row[key]) for key in FIGURES)) for name, row in others.items()]
    columns = ("trial", *FIGURES.values())
    return [
        f"In percent: mean ± standard deviation over the seeds {', '.join(map(str, seeds))}, with the 95 % "
        "interval over seeds and groups of identical images.",
        "",
        *tables.table(columns, rows),
        "",
        f"Difference from {baseline} in points, with the 95 % interval, in bold where it excludes 0; of "
        f"{len(others) * len(FIGURES)} intervals, about one in twenty does so by chance. The best of many "
        "trials is partly best by chance, which the intervals do not account for.",
        "",
        *tables.table(columns, apart),
    ]


def _mean(row: Mapping[str, Any]) -> str:
    spread = "" if row["std"] is None else f" ± {100 * row['std']:.2f}"
    low, high = row["mean_interval_95"]
    return f"{100 * row['mean']:.2f}{spread} ({100 * low:.2f} to {100 * high:.2f})"


def _difference(row: Mapping[str, Any]) -> str:
    low, high = row["interval_95"]
    text = f"{100 * row['difference']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
    return f"**{text}**" if low > 0 or high < 0 else text


def plot_differences(
    result: Mapping[str, Mapping[str, Mapping[str, Any]]], path: pathlib.Path
) -> "plotting.Figure":
    """Plots differences from the baseline with intervals, in points, one panel per metric of `compare`."""
    trials = [name for name in result if name != BASELINE]
    height = 1.6 + 0.38 * max(len(trials), 2)
    figure, axes = plotting.new_figure(13, height, columns=len(FIGURES), sharey=True)
    places = np.arange(len(trials))[::-1]
    for axis, (key, title) in zip(axes, FIGURES.items(), strict=True):
        for place, name in zip(places, trials, strict=True):
            row = result[name][key]
            low, high = (100 * bound for bound in row["interval_95"])
            color = "C2" if (row["difference"] > 0) != (key == "ece") else "C3"
            color = color if low > 0 or high < 0 else "0.5"
            axis.plot([low, high], [place, place], color=color, linewidth=2)
            axis.plot(100 * row["difference"], place, "o", color=color, markersize=5)
        axis.axvline(0, color="0.4", linestyle="--", linewidth=1)
        better = "lower" if key == "ece" else "higher"
        own = 100 * result[BASELINE][key]["mean"]
        axis.set_title(f"{title}\n({own:.1f}, {better} is better)", fontsize=10)
        axis.set_xlabel("difference in points")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(places, [name.replace("_", " ") for name in trials])
    axes[0].set_ylim(-0.6, len(trials) - 0.4)
    title = "Difference from the baseline (its value in parentheses), with 95 % intervals"
    figure.suptitle(title, fontsize=11)
    return plotting.save(figure, path)


def plot_ranking(
    result: Mapping[str, Any], trials: Mapping[str, Mapping[str, str]], path: pathlib.Path, by: str
) -> "plotting.Figure":
    """Plots one of the `FIGURES` with intervals against each varied field, one panel per field.

    `result` is from `compare`, best first; `trials` are {field: value} by name.
    """
    fields: dict[str, dict[str, str]] = {}
    for name in result:
        for field, value in trials[name].items():
            fields.setdefault(field, {})[name] = value
    fields = {field: values for field, values in fields.items() if len(set(values.values())) > 1} or fields
    width = max(4.2 * len(fields), 6)
    figure, axes = plotting.new_figure(width, 4.2, columns=len(fields), sharey=True, squeeze=False)
    for axis, (field, values) in zip(axes[0], fields.items(), strict=True):
        for name, place in zip(values, _set_places(axis, list(values.values())), strict=True):
            low, high = (100 * bound for bound in result[name][by]["mean_interval_95"])
            axis.plot([place, place], [low, high], color="0.7", linewidth=1.5, zorder=1)
            color = "C3" if name == next(iter(result)) else "C0"
            axis.plot(place, 100 * result[name][by]["mean"], "o", color=color, markersize=5)
        axis.set_xlabel(field)
        axis.grid(axis="y", alpha=0.3)
    axes[0, 0].set_ylabel(f"{FIGURES[by]} in percent")
    figure.suptitle("All trials with 95 % intervals, the best in red", fontsize=11)
    return plotting.save(figure, path)


def _set_places(axis: "plotting.Axes", values: Sequence[str]) -> list[float]:
    """Prepares an axis for the values of a field; returns the position of each trial."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        numbers = []
    if len(set(numbers)) > _MOST_TICKS:
        if min(numbers) > 0 and max(numbers) / min(numbers) >= 8:
            axis.set_xscale("log")
        return numbers
    ticks = sorted(set(values), key=float if numbers else str)
    axis.set_xticks(range(len(ticks)), ticks, rotation=20, ha="right", rotation_mode="anchor")
    axis.set_xlim(-0.5, len(ticks) - 0.5)
    # Trials with the same value are side by side, the best first.
    aside = [(values[:i].count(value) + 0.5) / values.count(value) for i, value in enumerate(values)]
    return [ticks.index(value) + 0.6 * a - 0.3 for value, a in zip(values, aside, strict=True)]
