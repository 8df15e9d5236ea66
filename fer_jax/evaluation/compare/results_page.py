"""Generates RESULTS.md and the README's table of bundled networks from the stored results."""

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

from fer_jax.evaluation.compare import comparison_page, model_results, result_store, significance, sweep
from fer_jax.evaluation.metrics import annotators
from fer_jax.evaluation.robustness.corruptions import CORRUPTIONS
from fer_jax.pretrained.registry import BUNDLED

FOLDER, PICTURES = "results", "pictures"
PAGE, README = "RESULTS.md", "README.md"
BEGIN = "<!-- networks: made by `make report` -->"
END = "<!-- end of networks -->"


@dataclasses.dataclass(frozen=True)
class Compared:
    """Stored results on the same images."""

    found: dict[str, Any]  # from `significance.compare`
    metadata: dict[str, dict[str, Any]]  # by name

    def known(self, key: str) -> dict[str, Any]:
        """Returns a metadata field of the results that have it, by name, best result first."""
        names = [row["name"] for row in significance.best_first(self.found)]
        return {name: self.metadata[name][key] for name in names if self.metadata[name].get(key)}


@dataclasses.dataclass(frozen=True)
class Results:
    """All stored results."""

    compared: dict[str, Compared]  # by title, for each set of images and labels
    ablations: dict[str, result_store.Ablation]  # by name


def collect(root: pathlib.Path) -> Results:
    """Reads all stored results in a folder and computes all metrics.

    Raises:
      FileNotFoundError: there are no stored results.
      ValueError: a file cannot be read.
    """
    paths = sorted(path.parent for path in root.glob(f"*/{result_store.ABLATION}"))
    ablations = {path.name: result_store.load_ablation(path) for path in paths}
    return Results(compare(result_store.folders(root)), ablations)


def compare(folders: Sequence[pathlib.Path]) -> dict[str, Compared]:
    """Compares the stored results of each set of images and labels; returns them by title."""
    compared: dict[str, Compared] = {}
    for group in result_store.group(list(folders)):
        members = model_results.load(group)
        first = members[0].metadata
        labels = first.get("labels", "given")
        parts = (first["data"]["name"], first["split"], None if labels == "given" else labels)
        title = "_".join(filter(None, parts))
        names = itertools.chain([title], (f"{title}_{number}" for number in itertools.count(2)))
        free = next(name for name in names if name not in compared)
        metadata = {member.name: member.metadata for member in members}
        compared[free] = Compared(significance.compare(members), metadata)
    return compared


def draw(root: pathlib.Path, results: Results) -> None:
    """Plots the figures of the page into `root`/`FOLDER`/`PICTURES`."""
    for name in (*results.compared, *results.ablations):
        (root / FOLDER / PICTURES / name).mkdir(parents=True, exist_ok=True)
    for title, group in results.compared.items():
        comparison_page.draw(root / FOLDER / PICTURES / title, group.found)
    for name, one in results.ablations.items():
        sweep.plot_differences(one.figures, root / FOLDER / PICTURES / name / sweep.DIFFERENCES)


def pages(root: pathlib.Path, results: Results) -> dict[pathlib.Path, str]:
    """Returns the required content of RESULTS.md and README.md, both in `root`, by path.

    Raises:
      ValueError: the README lacks the markers of its table.
    """
    before, begin, rest = (root / README).read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f"{root / README} lacks the markers {BEGIN} and {END}: put them around its table of networks"
        )
    readme = f"{before}{begin}\n{_render('readme.md.j2', results)}{end}{after}"
    return {root / PAGE: _render("results.md.j2", results), root / README: readme}


def _render(name: str, results: Results) -> str:
    return comparison_page.render(
        name,
        compared=results.compared,
        ablations=results.ablations,
        folder=FOLDER,
        bundled=BUNDLED,
        corruptions=CORRUPTIONS,
        best_first=significance.best_first,
        band_title=annotators.title,
        ablation_tables=lambda one: "\n".join(sweep.result_tables(one.figures, one.metadata["seeds"])),
    )
