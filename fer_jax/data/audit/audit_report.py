"""An audit as files: audit.json with everything, audit.md to read, and the pictures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_jax.data.audit import audit, audit_plots
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources.recognize import open_source


def write_audit(
    source_path: str | Path,
    out_dir: str | Path,
    *,
    class_map: Mapping[str, str] | None = None,
    near_threshold: float = 0.9,
    progress: bool = True,
) -> dict[str, Any]:
    """Audits a source and writes audit.json, audit.md and pictures into `out_dir`.

    Args:
      source_path, class_map: see `recognize.open_source`.
      near_threshold: zero-mean correlation from which two images count as near duplicates, in (0, 1].

    Returns:
      The content of audit.json.

    Raises:
      SourceError: when there is nothing to audit.
      ValueError: for a threshold out of range.
      OSError: when `out_dir` cannot be written.
    """
    if not 0 < near_threshold <= 1:
        raise ValueError(f"near_threshold must be above 0 and at most 1, got {near_threshold}")
    source = open_source(source_path, class_map)
    out = Path(out_dir).expanduser()
    out.mkdir(parents=True, exist_ok=True)
    data = audit.collect(source, progress)
    report = audit.examine(source, data, near_threshold, progress)
    report["pictures"] = audit_plots.write_pictures(out, data, report)
    (out / "audit.json").write_text(json.dumps(report, indent=1) + "\n")
    (out / "audit.md").write_text(markdown(report))
    return report


def markdown(report: dict[str, Any]) -> str:
    """The report as Markdown; pictures are expected beside it."""
    shapes = ", ".join(f"{n:,} {shape}" for shape, n in list(report["shapes"].items())[:5])
    parts = [
        f"# Audit of {report['source']}",
        f"{report['images']:,} images, read as `{report['kind']}`; {shapes}.",
        "## What deserves attention",
        _bullets(report["warnings"]) or "Nothing was found.",
        _bullets(report["notes"]),
        _official(report["official"]),
        "## Images",
        _class_table(report["splits"]),
        _pixel_table(report["pixels"]),
        _bad(report["bad"]),
        "## Identical images",
        _identical(report["identical"]),
        "## Near duplicates",
        _near(report["near"]),
        "## Pictures",
        "\n\n".join(f"{text}\n\n![{text}]({name})" for name, text in report["pictures"].items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(header: list[str], rows: list[list[str]]) -> str:
    align = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, align, *rows])


def _official(official: dict[str, Any]) -> str:
    if not official["compared"]:
        return "Not compared with FER2013: the source does not present itself as a copy of it."
    if not official["differences"]:
        return "Counts, sizes and pixel statistics are those of the official FER2013."
    return ""


def _class_table(splits: dict[str, Any]) -> str:
    rows = [
        [e, *(f"{s['class_counts'][e]:,} ({s['class_shares'][e]:.1%})" for s in splits.values())]
        for e in EMOTIONS
    ]
    rows.append(["all", *(f"{split['count']:,}" for split in splits.values())])
    return _table(["", *splits], rows)


def _pixel_table(pixels: dict[str, Any]) -> str:
    rows = [
        [name, *(f"{numbers[key]:.4f}" for key in ("mean", "std", "sharpness"))]
        for name, numbers in [*pixels["splits"].items(), *pixels["classes"].items()]
    ]
    note = "Values in [0, 1]; sharpness: mean absolute difference of neighbours in a row, at 48 x 48."
    return _table(["", "pixel mean", "pixel std", "sharpness"], rows) + "\n\n" + note


def _bad(bad: dict[str, Any]) -> str:
    if not bad["count"]:
        return ""
    listed = [f"{b['where']}: {b['reason']}" for b in bad["records"][:20]]
    return f"Rows or images that cannot be used: {bad['count']:,}\n\n{_bullets(listed)}" + (
        "\n- ... (all are in audit.json)" if bad["count"] > 20 else ""
    )


def _identical(identical: dict[str, Any]) -> str:
    if not identical["groups"]:
        return "No two images are identical."
    where = ", ".join(f"{n:,} in {name}" for name, n in identical["groups_by_splits"].items())
    return (
        f"{identical['groups']:,} groups of pixel-identical images, {identical['images']:,} images "
        f"in all ({where}); {identical['conflicting_groups']:,} groups carry different "
        f"labels.\n\n{_copies(identical['images_with_copy'], 'an identical copy')}"
    )


def _near(near: dict[str, Any]) -> str:
    text = (
        f"Zero-mean correlation of at least {near['threshold']:g} at 48 x 48, grey: "
        f"{near['pairs']:,} pairs of different images, {near['images']:,} images"
    )
    if near["pairs"]:
        where = ", ".join(f"{n:,} in {name}" for name, n in near["pairs_by_splits"].items())
        text += f" ({where}); {near['label_agreement']:.1%} of the pairs agree on the label"
    return f"{text}.\n\n{_copies(near['images_with_copy'], 'an identical or near copy')}"


def _copies(copies: dict[str, dict[str, int]], what: str) -> str:
    rows = [[name, *(f"{n:,}" for n in row.values())] for name, row in copies.items()]
    return f"Images of a split (row) with {what} in a split (column):\n\n" + _table(["", *copies], rows)
