"""RESULTS.md and the README's table of results, from the stored results alone."""

import dataclasses
import itertools
import pathlib
from collections.abc import Sequence
from typing import Any

from fer_jax import tables
from fer_jax.evaluation.compare import ablation, comparison_page, model_results, result_store, significance
from fer_jax.evaluation.metrics import annotators
from fer_jax.evaluation.robustness.corruptions import CORRUPTIONS

FOLDER, PICTURES = "results", "pictures"
PAGE, README = "RESULTS.md", "README.md"
BEGIN = "<!-- results: made by `make report` -->"
END = "<!-- end of results -->"


@dataclasses.dataclass(frozen=True)
class Compared:
    """Stored results on the same images.

    Attributes:
      found: from `significance.compare`.
      facts: {name: its stored facts}.
    """

    found: dict[str, Any]
    facts: dict[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Results:
    """All that is stored.

    Attributes:
      compared: {title: results}, for each set of images and labels.
      ablations: {name: ablation}.
    """

    compared: dict[str, Compared]
    ablations: dict[str, result_store.Ablation]


def collect(root: pathlib.Path) -> Results:
    """Reads everything stored in a folder and computes every figure.

    Raises:
      FileNotFoundError: nothing is stored there.
      ValueError: something cannot be read.
    """
    ablations = {path.name: result_store.load_ablation(path) for path in result_store.ablations(root)}
    return Results(compare(result_store.folders(root)), ablations)


def compare(folders: Sequence[pathlib.Path]) -> dict[str, Compared]:
    """The stored results, {title: results} for each set of images and labels."""
    compared: dict[str, Compared] = {}
    for group in result_store.group(list(folders)):
        members = model_results.load(group)
        first = members[0].facts
        title = "_".join(filter(None, (first["data"]["name"], first["split"], _labels(first))))
        names = itertools.chain([title], (f"{title}_{number}" for number in itertools.count(2)))
        free = next(name for name in names if name not in compared)
        facts = {member.name: member.facts for member in members}
        compared[free] = Compared(significance.compare(members), facts)
    return compared


def _labels(facts: dict[str, Any]) -> str | None:
    return None if facts.get("labels", "given") == "given" else facts["labels"]


def draw(root: pathlib.Path, results: Results) -> None:
    """Draws the pictures of the page into `root`/`FOLDER`/`PICTURES`."""
    for title, group in results.compared.items():
        folder = root / FOLDER / PICTURES / title
        folder.mkdir(parents=True, exist_ok=True)
        comparison_page.draw(folder, group.found)
    for name, one in results.ablations.items():
        folder = root / FOLDER / PICTURES / name
        folder.mkdir(parents=True, exist_ok=True)
        ablation.plot_differences(one.figures, folder / ablation.PICTURE)


def pages(root: pathlib.Path, results: Results) -> dict[pathlib.Path, str]:
    """What the page and the README have to hold.

    Args:
      root: folder of both.
      results: from `collect`.

    Raises:
      ValueError: the README lacks the marks between which its table stands.
    """
    readme = (root / README).read_text()
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(
            f"{root / README} lacks the marks {BEGIN} and {END}, between which its table is written"
        )
    readme = f"{before}{begin}\n" + "\n".join(readme_table(results)) + f"\n{end}{after}"
    return {root / PAGE: "\n".join(results_page(results)) + "\n", root / README: readme}


def results_page(results: Results) -> list[str]:
    """The lines of RESULTS.md."""
    lines = [
        "# Results",
        "",
        f"Made by `make report` from the predictions in `{FOLDER}/`; no figure is typed by hand, and a "
        "test holds this page to them. How the models were made is at the end.",
    ]
    for title, group in results.compared.items():
        pictures = f"{FOLDER}/{PICTURES}/{title}/"
        lines += ["", f"## {title.replace('_', ' ')}", ""]
        lines += [
            f"#{line}" if line.startswith("## ") else line
            for line in comparison_page.sections(group.found, pictures)
        ]
        ranked = {row["name"]: group.facts[row["name"]] for row in significance.best_first(group.found)}
        lines += [*_robustness(ranked), *_annotators(ranked)]
    for name, one in results.ablations.items():
        lines += ["", f"## {name.replace('_', ' ')}", "", *_ablation(name, one)]
    head = ("result", "network", "seed", "commit", "hardware", "minutes", "command")
    rows = [
        _origin(row) for group in results.compared.values() for row in significance.best_first(group.found)
    ]
    return [*lines, "", "## Origin", "", *tables.table(head, rows)]


def _robustness(facts: dict[str, dict[str, Any]]) -> list[str]:
    """The section on corrupted faces, of those results that know of them."""
    known = {name: of["robustness"] for name, of in facts.items() if of.get("robustness")}
    if not known:
        return []

    def row(title: str, figures: list[dict[str, Any]], key: str = "value") -> tuple[str, ...]:
        return title, *(_with_interval(figure, key) for figure in figures)

    of = list(known.values())
    rows = [
        ("faces", *(f"{one['num_examples']:,}" for one in of)),
        row("clean", [one["clean"] for one in of], "accuracy"),
        row("mean over all corruptions", [one["mean_corruption_accuracy"] for one in of]),
        row("that, as a share of the clean accuracy", [one["kept"] for one in of]),
        ("without near copies: clean", *(_without_near(one, "clean", "accuracy") for one in of)),
        ("without near copies: mean", *(_without_near(one, "mean_corruption_accuracy") for one in of)),
        *(row(CORRUPTIONS[name].title, [one["corruptions"][name] for one in of]) for name in CORRUPTIONS),
    ]
    return [
        "",
        "### Corrupted faces",
        "",
        "Accuracy in percent, in brackets 95 % intervals: each corruption's mean over five severities "
        "(`fer-jax robustness`).",
        "",
        *tables.table(("", *known), rows),
    ]


def _without_near(found: dict[str, Any], figure: str, key: str = "value") -> str:
    part = (found["leak_free"] or {}).get("without_near")
    return _with_interval(part[figure], key) if part else ""


def _with_interval(figure: dict[str, Any], key: str) -> str:
    """In percent."""
    low, high = figure["interval_95"]
    return f"{100 * figure[key]:.1f} ({100 * low:.1f} - {100 * high:.1f})"


def _annotators(facts: dict[str, dict[str, Any]]) -> list[str]:
    """The section on FER+'s annotators, of those results that know of them."""
    known = {name: of["annotators"] for name, of in facts.items() if of.get("annotators")}
    if not known:
        return []
    of = list(known.values())
    rows = [
        ("given labels, all images", *(_accuracy(one["against"]["given"]) for one in of)),
        ("FER+ majority, all images", *(_accuracy(one["against"][annotators.RULE]) for one in of)),
    ]
    for i, band in enumerate(of[0]["bands"]):
        title = f"FER+ majority, {annotators.title(band)} agree"
        if band["num_examples"]:
            title += f" (one annotator {100 * band['one_annotator']:.1f})"
        rows.append(
            (title, *(_accuracy(one["bands"][i].get("against", {}).get(annotators.RULE)) for one in of))
        )
    return [
        "",
        "### Annotators",
        "",
        "Accuracy in percent, in brackets 95 % intervals, against the labels that FER2013 came with and "
        "against the majority of FER+'s ten annotators, by the share of them who agree; in brackets beside "
        "that how often one of them says what most of the others do.",
        "",
        *tables.table(("", *known), rows),
    ]


def _accuracy(figure: dict[str, Any] | None) -> str:
    if not figure or not figure["num_examples"]:
        return ""
    return _with_interval(figure, "accuracy")


def _ablation(name: str, one: result_store.Ablation) -> list[str]:
    run, facts = one.facts["run"], one.facts
    flags = [f"`{recipe}`: `{' '.join(words)}`" for recipe, words in facts["recipes"] if words]
    origin = [f"`{run['command']}`" if run["command"] else "", f"commit {run['commit']}", run["hardware"]]
    return [
        f"`{facts['model']['name']}` with {facts['parameters']:,} parameters, {facts['data']['name']}, "
        f"{one.images:,} images of `{facts['split']}`. "
        f"{', '.join(filter(None, origin))}.",
        "",
        f"Each recipe adds one thing to the baseline: {'; '.join(flags)}.",
        "",
        *ablation.result_tables(one.figures, facts["seeds"]),
        "",
        f"![Differences]({FOLDER}/{PICTURES}/{name}/{ablation.PICTURE})",
    ]


def _origin(row: dict[str, Any]) -> tuple[str, ...]:
    run = row["run"]
    return (
        row["name"],
        f"`{row['model']}`",
        "" if row["seed"] is None else str(row["seed"]),
        run["commit"] or "",
        run["hardware"] or "",
        "" if run["seconds"] is None else f"{run['seconds'] / 60:,.0f}",
        f"`{run['command']}`" if run["command"] else "",
    )


def readme_table(results: Results) -> list[str]:
    """The lines of the README's tables, one for each set of images and labels."""
    lines = []
    head = (
        "result", "accuracy", "without near copies", "macro F1", "ECE", "parameters", "MFLOPs",
        "milliseconds", "trained on, for",
    )  # fmt: skip
    for title, group in results.compared.items():
        rows = [
            (
                row["name"],
                comparison_page.percent(row, "accuracy"),
                comparison_page.percent(row["without_near"], "accuracy"),
                comparison_page.percent(row, "macro_f1"),
                comparison_page.percent(row, "ece"),
                comparison_page.parameters(row),
                comparison_page.mega(row["flops"]),
                comparison_page.latency(row),
                comparison_page.training(row),
            )
            for row in significance.best_first(group.found)
        ]
        images = f"{title.replace('_', ' ')}, {group.found['num_examples']:,} images"
        lines += ["", f"{images}, in percent with 95 % intervals:", "", *tables.table(head, rows)]
    return [*lines, ""]
