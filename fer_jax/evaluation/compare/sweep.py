"""A search over the fields of a configuration: what is tried, and the ranking of what came of it."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fer_jax import tables
from fer_jax.evaluation import plots
from fer_jax.evaluation.compare import ablation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWS = ("uniform", "log", "int", "choice")
PICTURE = "sweep.png"
_LONGEST_NAME = 100
_MOST_TICKS = 8

Trial = dict[str, str]  # a value, as the command line takes it, for each field


@dataclasses.dataclass(frozen=True)
class Draw:
    """How a field's value is drawn.

    Attributes:
      kind: 'uniform' between two numbers, 'log' (its logarithm is uniform), 'int' (a whole number, both ends
        possible) or 'choice' of the values.
      values: of the command line.
    """

    kind: str
    values: tuple[str, ...]

    def __post_init__(self):
        if self.kind not in DRAWS:
            raise ValueError(f"{self.kind!r} is no way to draw; there are: {', '.join(DRAWS)}")
        if self.kind == "choice":
            if not self.values:
                raise ValueError("choice needs values to choose from")
            return
        try:
            low, high = self._bounds()
        except ValueError:
            raise ValueError(f"{self.kind} needs two numbers, got {' '.join(self.values)!r}") from None
        least = " above 0" if self.kind == "log" else ""
        if not (np.isfinite([low, high]).all() and low < high and (low > 0 or not least)):
            raise ValueError(f"{self.kind} {low:g} {high:g}: expected a low number{least} and a higher one")
        if self.kind == "int" and math.ceil(low) > math.floor(high):
            raise ValueError(f"int {low:g} {high:g}: there is no whole number between them")

    def _bounds(self) -> tuple[float, float]:
        low, high = (float(value) for value in self.values)
        return low, high

    def sample(self, rng: np.random.Generator) -> str:
        """One value; of numbers four digits, within the bounds."""
        if self.kind == "choice":
            return self.values[rng.integers(len(self.values))]
        low, high = self._bounds()
        if self.kind == "int":
            return str(rng.integers(math.ceil(low), math.floor(high), endpoint=True))
        value = np.exp(rng.uniform(*np.log([low, high]))) if self.kind == "log" else rng.uniform(low, high)
        return f"{min(max(float(f'{value:.4g}'), low), high):g}"


def grid(fields: Mapping[str, Sequence[str]]) -> list[Trial]:
    """Every combination of the fields' values, the last field changing fastest."""
    return [dict(zip(fields, values, strict=True)) for values in itertools.product(*fields.values())]


def random(fields: Mapping[str, Draw], count: int, seed: int) -> list[Trial]:
    """`count` draws of all fields (Bergstra & Bengio 2012); a larger count begins with the same ones."""
    rng = np.random.default_rng(seed)
    return [{name: draw.sample(rng) for name, draw in fields.items()} for _ in range(count)]


def trial_name(trial: Trial) -> str:
    """A name for the folder of a trial, of its own, whatever the order of the fields."""
    text = ",".join(f"{name.rsplit('.', 1)[-1]}={value}" for name, value in sorted(trial.items()))
    name = re.sub(r"[^\w.,=+-]", "_", text)
    if (
        name == text
        and len(name) <= _LONGEST_NAME
        and len({n.rsplit(".", 1)[-1] for n in trial}) == len(trial)
    ):
        return name
    digest = hashlib.sha256(repr(sorted(trial.items())).encode()).hexdigest()[:8]
    return f"{name[:_LONGEST_NAME]}~{digest}"


def rank(
    runs: Mapping[str, Sequence[np.ndarray]],
    labels: np.ndarray,
    groups: np.ndarray,
    *,
    by: str = "accuracy",
    resamples: int = 2000,
) -> dict[str, dict[str, dict[str, Any]]]:
    """The figures of every trial, the best first, and how far each lies from the first.

    Args:
      runs: the probabilities float [N, K] of each trial's runs, one for each seed.
      labels, groups, resamples: as `ablation.compare` takes them.
      by: the figure to rank by, one of `ablation.FIGURES`.

    Returns:
      As `ablation.compare`, with the first in the role of the baseline.
    """
    means = {
        name: np.mean([ablation.figures_of(run, labels)[by] for run in probs]) for name, probs in runs.items()
    }
    order = sorted(runs, key=means.get, reverse=by != "ece")
    ranked = {name: runs[name] for name in order}
    return ablation.compare(ranked, labels, groups, baseline=order[0], resamples=resamples)


def table(ranking: Mapping[str, Mapping[str, Any]], trials: Mapping[str, Trial]) -> list[str]:
    """The lines of a page: the trials by rank, in percent, with intervals.

    Args:
      ranking: from `rank`.
      trials: the fields of each.
    """
    fields = list(next(iter(trials.values())))
    first = next(iter(ranking))
    rows = []
    for number, (name, row) in enumerate(ranking.items(), 1):
        apart = "" if name == first else ablation.difference(row["accuracy"])
        figures = [ablation.with_interval(row[key]) for key in ablation.FIGURES]
        rows.append((str(number), *(trials[name][field] for field in fields), *figures, apart))
    columns = ("rank", *fields, *ablation.FIGURES.values(), "accuracy, points from the first")
    return [
        *tables.table(columns, rows),
        "",
        "In percent, with 95 % intervals over seeds and groups of identical images. A difference in bold "
        "leaves out 0; of many trials the first is so in part by luck, which these intervals do not count.",
    ]


def plot(
    ranking: Mapping[str, Mapping[str, Any]], trials: Mapping[str, Trial], path: pathlib.Path, by: str
) -> Figure:
    """The figure ranked by, against each field that differs: one panel each, all trials with intervals."""
    fields = list(next(iter(trials.values())))
    fields = [field for field in fields if len({trials[name][field] for name in ranking}) > 1] or fields[:1]
    figure, axes = plots.new_figure(max(4.2 * len(fields), 6), 4.2, columns=len(fields), sharey=True)
    for axis, field in zip(np.atleast_1d(axes), fields, strict=True):
        values = [trials[name][field] for name in ranking]
        ticks = _ticks(values)
        # Trials of one value stand side by side, the better the further left.
        places = [ticks.index(v) + _aside(values, i) for i, v in enumerate(values)] if ticks else values
        for i, (place, row) in enumerate(zip(map(float, places), ranking.values(), strict=True)):
            low, high = (100 * bound for bound in row[by]["mean_interval_95"])
            axis.plot([place, place], [low, high], color="0.7", linewidth=1.5, zorder=1)
            axis.plot(place, 100 * row[by]["mean"], "o", color="C0" if i else "C3", markersize=5)
        if ticks:
            axis.set_xticks(range(len(ticks)), ticks, rotation=20, ha="right", rotation_mode="anchor")
            axis.set_xlim(-0.5, len(ticks) - 0.5)
        elif min(map(float, values)) > 0 and max(map(float, values)) / min(map(float, values)) >= 8:
            axis.set_xscale("log")
        axis.set_xlabel(field)
        axis.grid(axis="y", alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel(f"{ablation.FIGURES[by]} in percent")
    figure.suptitle("Every trial with its 95 % interval, the first in red", fontsize=11)
    figure.savefig(path, dpi=110)
    return figure


def _ticks(values: Sequence[str]) -> list[str]:
    """The distinct values in their order; none where they are more numbers than an axis has names for."""
    distinct = sorted(set(values))
    try:
        distinct.sort(key=float)
    except ValueError:
        return distinct
    return distinct if len(distinct) <= _MOST_TICKS else []


def _aside(values: Sequence[str], place: int) -> float:
    """How far from its value's tick the trial at `place` stands, between -0.3 and 0.3."""
    count = values.count(values[place])
    return 0.6 * (values[:place].count(values[place]) + 0.5) / count - 0.3
