"""Looks at a dataset before it is trained on.

    fer-jax audit --source fer2013.csv --out audit

Counts and class shares, pixel statistics, blank images, identical images within and across splits
and whether their labels agree, near duplicates, what cannot be read, and, for FER2013, how it
differs from the official data. Writes audit.md (start there), audit.json and pictures. SOURCE is
what fer-jax prepare takes.
"""

import argparse
import sys

from fer_jax.data.audit.audit_report import write_audit
from fer_jax.data.sources import folders
from fer_jax.data.sources.record import SourceError


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", required=True, help="CSV file, folder, or the word synthetic")
    parser.add_argument(
        "--map", action="append", default=[], metavar="CLASS=EMOTION", help="as fer-jax prepare takes it"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the report")
    parser.add_argument(
        "--near_threshold",
        type=_correlation,
        default=0.9,
        metavar="R",
        help="zero-mean correlation from which two images are near duplicates (default: 0.9)",
    )
    return parser.parse_args(argv)


def _correlation(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0 and at most 1")
    return value


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        class_map = folders.parse_map(args.map)
        report = write_audit(args.source, args.out, class_map=class_map, near_threshold=args.near_threshold)
    except SourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write {args.out}: {error.strerror}; give another --out", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    for note in report["notes"]:
        print(f"note: {note}")
    for warning in report["warnings"]:
        print(f"warning: {warning}")
    identical, near = report["identical"], report["near"]
    print(
        f"{report['images']:,} images; {identical['groups']:,} groups of identical ones "
        f"({identical['images']:,} images), {near['pairs']:,} near pairs, "
        f"{report['blank']['count']} blank\nreport: {args.out}/audit.md"
    )
    return 0
