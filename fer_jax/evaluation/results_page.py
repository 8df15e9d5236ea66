"""RESULTS.md and the README's table of results, from the stored results alone."""

import pathlib
from collections.abc import Sequence
from typing import Any

from fer_jax.evaluation import comparison, comparison_page, contenders, page, stored

FOLDER, PICTURES = "results", "pictures"
PAGE, README = "RESULTS.md", "README.md"
BEGIN = "<!-- results: made by `make report` -->"
END = "<!-- end of results -->"


def compare(folders: Sequence[pathlib.Path]) -> dict[str, dict[str, Any]]:
    """What `comparison.compare` says of the stored results, {title: comparison} for each set of images."""
    found = {}
    for group in stored.group(list(folders)):
        one = comparison.compare(contenders.load(group))
        facts = contenders.load(group[:1])[0].facts
        title = "_".join(filter(None, (facts["data"]["name"], facts["split"], _labels(facts))))
        number = sum(name == title or name.startswith(f"{title}_") for name in found)
        found[title if not number else f"{title}_{number + 1}"] = one
    return found


def _labels(facts: dict[str, Any]) -> str | None:
    return None if facts.get("labels", "given") == "given" else facts["labels"]


def pages(root: pathlib.Path, found: dict[str, dict[str, Any]]) -> dict[pathlib.Path, str]:
    """What the page and the README have to hold.

    Args:
      root: folder of both.
      found: from `compare`.

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
    readme = f"{before}{begin}\n" + "\n".join(readme_table(found)) + f"\n{end}{after}"
    return {root / PAGE: "\n".join(results_page(found)) + "\n", root / README: readme}


def results_page(found: dict[str, dict[str, Any]]) -> list[str]:
    """The lines of RESULTS.md."""
    lines = [
        "# Results",
        "",
        f"Made by `make report` from the predictions in `{FOLDER}/`; no figure is typed by hand, and a "
        "test holds "
        "this page to them. How the models were made is at the end.",
    ]
    for title, one in found.items():
        pictures = f"{FOLDER}/{PICTURES}/{title}/"
        lines += ["", f"## {title.replace('_', ' ')}", ""]
        lines += [
            f"#{line}" if line.startswith("## ") else line for line in comparison_page.sections(one, pictures)
        ]
    head = ("result", "network", "seed", "commit", "hardware", "minutes", "command")
    rows = [_origin(row) for one in found.values() for row in comparison.best_first(one)]
    return [*lines, "", "## Origin", "", *page.table(head, rows)]


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


def readme_table(found: dict[str, dict[str, Any]]) -> list[str]:
    """The lines of the README's table, one for each set of images."""
    lines = []
    head = (
        "result", "accuracy", "without near copies", "macro F1", "ECE", "parameters", "MFLOPs",
        "milliseconds", "trained on, for",
    )  # fmt: skip
    for title, one in found.items():
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
            for row in comparison.best_first(one)
        ]
        images = f"{title.replace('_', ' ')}, {one['num_examples']:,} images"
        lines += ["", f"{images}, in percent with 95 % intervals:", "", *page.table(head, rows)]
    return [*lines, ""]
