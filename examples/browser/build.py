"""Builds the page that recognizes emotions in the browser, as a folder for any static file host.

    npm install --prefix examples/browser
    python examples/browser/build.py --checkpoint my.safetensors --out dist/web
    python -m http.server --directory dist/web

The network is exported to ONNX and verified on faces as by fer-jax export; with --data the page states its
accuracy on the validation split. The face detector (YuNet), an example, and ONNX Runtime are copied to
the folder: the page loads nothing from elsewhere, and images stay in the browser.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from fer_jax.commands import common  # noqa: E402

SOURCE = Path(__file__).resolve().parent
RUNTIME = Path("node_modules", "onnxruntime-web", "dist")
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE_FILES = ("*.html", "*.css", "*.js", "*.svg")
OVERLAP = 0.3  # two boxes with a larger intersection over union are one face, as in OpenCV


def main(argv: list[str] | None = None) -> int:
    parser = common.plain_parser(__doc__)
    common.add_weights(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="output folder")
    parser.add_argument("--data", metavar="DATA", help="dataset from fer-jax prepare to verify the export on")
    return common.run(build, parser.parse_args(argv))


def build(args: argparse.Namespace) -> int:
    """Writes the page, the networks, what the page knows about them, and the runtime; returns the exit code.

    Raises:
      FileNotFoundError: if the runtime has not been installed.
      OSError, ValueError: as the export raises them.
    """
    from fer_jax.inference import drawing
    from fer_jax.inference.detection import assets
    from fer_jax.inference.detection.detectors import MIN_ROLL, YuNet
    from fer_jax.inference.export import check, export
    from fer_jax.inference.export.program import Program
    from fer_jax.inference.media.inputs import SAMPLE
    from fer_jax.inference.predictor import UNSURE_BELOW
    from fer_jax.io_utils import write_atomically

    runtime = SOURCE / RUNTIME
    if missing := [name for name in RUNTIME_FILES if not (runtime / name).is_file()]:
        raise FileNotFoundError(
            f"{runtime} lacks {', '.join(missing)}: install the runtime with npm install --prefix {SOURCE}"
        )
    program, out = Program(common.open_weights(args)), Path(args.out)
    common.open_folder(str(out / "ort"))
    faces = check.load_faces(program, args.data)
    metadata = export.export(program, "onnx", out / "model.onnx", "float32", faces)
    shutil.copyfile(assets.YUNET, out / "detector.onnx")
    shutil.copyfile(SAMPLE, out / "example.jpg")
    for name in RUNTIME_FILES:
        shutil.copyfile(runtime / name, out / "ort" / name)
    for path in (path for pattern in PAGE_FILES for path in SOURCE.glob(pattern)):
        shutil.copyfile(path, out / path.name)
    page = {
        "model": metadata,
        "detector": {
            "source": "YuNet, Apache-2.0, https://github.com/ShiqiYu/libfacedetection.train",
            "min_score": YuNet.MIN_SCORE,
            "overlap": OVERLAP,
            "frame_scale": YuNet.SCALE,
            "frame_down": YuNet.DOWN,
            "min_roll": MIN_ROLL,
        },
        "unsure_below": UNSURE_BELOW,
        "colors": drawing.COLORS | {"unsure": drawing.UNSURE_COLOR},
    }
    write_atomically(out / "page.json", (json.dumps(page, indent=2) + "\n").encode())
    print(f"{out}: {sum(path.stat().st_size for path in out.rglob('*') if path.is_file()) / 1e6:.0f} MB")
    print(f"to open it: python -m http.server --directory {out}, then http://localhost:8000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
