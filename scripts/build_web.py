"""Builds the page that recognizes emotions in the browser, as a folder for any static file host.

    npm install --prefix examples/browser
    python scripts/build_web.py --checkpoint my.safetensors --out dist/web
    python -m http.server --directory dist/web

The network is exported to ONNX and checked as fer-jax export does it; with --data the page states its
accuracy on the validation split. The face detector (YuNet, downloaded the first time) and ONNX Runtime are
copied beside the page: it loads nothing from elsewhere, and images stay in the browser.
"""

import argparse
import sys

from fer_jax.commands import common


def main(argv: list[str] | None = None) -> int:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    common.add_weights(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder")
    parser.add_argument("--data", metavar="DATA", help="made by fer-jax prepare; to check the export with")
    return common.run(build, parser.parse_args(argv))


def build(args: argparse.Namespace) -> int:
    """Writes the folder and says how to open it; returns the exit code."""
    from fer_jax.inference.export import page
    from fer_jax.inference.export.program import Program

    program, out = Program(common.open_weights(args)), common.open_folder(args.out)
    page.build(program, out, args.data)
    print(f"{out}: {sum(path.stat().st_size for path in out.rglob('*') if path.is_file()) / 1e6:.0f} MB")
    print(f"open it: python -m http.server --directory {out}, then http://localhost:8000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
