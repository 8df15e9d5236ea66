"""Makes the folder of the page that recognises emotions in the browser, for any static file host.

    npm install --prefix web
    python scripts/build_web.py --checkpoint my.safetensors --out dist/web
    python -m http.server --directory dist/web

The network is exported to ONNX and tried on faces as fer-jax export does it; with --data the page states
its accuracy on the validation split. The page, the face detector (YuNet, fetched the first time) and ONNX
Runtime lie beside it: the page loads nothing from elsewhere, and the pictures that it is shown stay in the
browser.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fer_jax.commands import common  # noqa: E402


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    common.add_weights(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder")
    parser.add_argument("--data", metavar="DATA", help="made by fer-jax prepare; to try it on")
    return common.run(build, parser.parse_args(argv))


def build(args: argparse.Namespace) -> int:
    """Writes the folder and says how to look at it; the exit code."""
    from fer_jax.inference.export import page
    from fer_jax.inference.export.program import Program

    program, out = Program(common.open_weights(args)), common.open_folder(args.out)
    page.build(program, out, args.data)
    print(f"{out}: {sum(path.stat().st_size for path in out.rglob('*') if path.is_file()) / 1e6:.0f} MB")
    print(f"look at it: python -m http.server --directory {out}, then http://localhost:8000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
