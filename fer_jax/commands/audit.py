"""Inspects a dataset before training.

    fer-jax audit --source fer2013.csv --out audit

Reports class counts, pixel statistics, blank images, duplicates and near duplicates within and across
splits, whether their labels agree, unreadable images, and, for FER2013, differences from the official
data. Writes audit.md (start there), audit.json, and figures. SOURCE is as for fer-jax prepare.
"""

import argparse
import json

from fer_jax import tables
from fer_jax.commands import common
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import classes
from fer_jax.data.sources.recognize import open_source


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    add = parser.add_argument
    add("--source", required=True, help="file, folder, dataset to download, or the word synthetic")
    text = "as for fer-jax prepare"
    add("--map", action="append", default=[], metavar="CLASS=EMOTION", help=text)
    add("--out", required=True, metavar="OUT", help="folder for the report")
    text = "minimum zero-mean correlation of near duplicates"
    add("--near_threshold", type=common.number(float, 1e-6, 1), default=0.9, metavar="R", help=text)
    return common.run(audit, parser.parse_args(argv))


def audit(args: argparse.Namespace) -> int:
    """Writes the audit and prints a summary; returns the exit code."""
    from fer_jax.data.audit import audit, audit_plots

    source = open_source(args.source, classes.parse(args.map))
    out = common.open_folder(args.out)
    data = audit.collect(source)
    report = audit.examine(source, data, args.near_threshold)
    report["pictures"] = audit_plots.write_pictures(out, data, report)
    (out / "audit.json").write_text(json.dumps(report, indent=1) + "\n")
    page = tables.render("fer_jax.data.audit", "audit.md.j2", report=report, emotions=EMOTIONS)
    (out / "audit.md").write_text(page)
    for kind in ("note", "warning"):
        for line in report[f"{kind}s"]:
            print(f"{kind}: {line}")
    identical, near = report["identical"], report["near"]
    print(
        f"{report['images']:,} images; {identical['groups']:,} groups of identical images "
        f"({identical['images']:,} images), {near['pairs']:,} pairs of near duplicates, "
        f"{report['blank']['count']} blank\nreport: {out}/audit.md"
    )
    return 0
