"""Inspects a dataset before training.

    fer-jax audit --source fer2013.csv --out audit

Counts and class shares, pixel statistics, blank images, identical images within and across splits
and whether their labels agree, near duplicates, what cannot be read, and, for FER2013, how it
differs from the official data. Writes audit.md (start there), audit.json and pictures. SOURCE is
what fer-jax prepare takes.
"""

import argparse

from fer_jax.commands import common
from fer_jax.data.sources import classes


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    add = parser.add_argument
    add("--source", required=True, help="file, folder, dataset to download, or the word synthetic")
    text = "as fer-jax prepare takes it"
    add("--map", action="append", default=[], metavar="CLASS=EMOTION", help=text)
    add("--out", required=True, metavar="OUT", help="folder for the report")
    text = "zero-mean correlation from which two images are near duplicates"
    add("--near_threshold", type=common.number(float, 1e-6, 1), default=0.9, metavar="R", help=text)
    return common.run(audit, parser.parse_args(argv))


def audit(args: argparse.Namespace) -> int:
    """Audits, writes and prints; returns the exit code."""
    from fer_jax.data.audit.audit_report import write_audit

    class_map, out = classes.parse(args.map), common.open_folder(args.out)
    report = write_audit(args.source, out, class_map=class_map, near_threshold=args.near_threshold)
    for kind in ("note", "warning"):
        for line in report[f"{kind}s"]:
            print(f"{kind}: {line}")
    identical, near = report["identical"], report["near"]
    print(
        f"{report['images']:,} images; {identical['groups']:,} groups of identical ones "
        f"({identical['images']:,} images), {near['pairs']:,} near pairs, "
        f"{report['blank']['count']} blank\nreport: {out}/audit.md"
    )
    return 0
