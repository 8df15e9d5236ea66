"""The page that runs an exported network in the browser, as a folder for any static file host."""

import json
import os
import pathlib
import shutil
from typing import Any

from fer_jax.inference.detection import assets
from fer_jax.inference.detection.detectors import LEAST_TILT, YuNet
from fer_jax.inference.export import check, export
from fer_jax.inference.export.program import Program
from fer_jax.inference.predictor import UNSURE_BELOW
from fer_jax.io_utils import write_atomically

SOURCE = pathlib.Path(__file__).resolve().parents[3] / "examples" / "browser"
RUNTIME = pathlib.Path("node_modules", "onnxruntime-web", "dist")
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE_FILES = ("*.html", "*.css", "*.js", "*.svg")

OVERLAP = 0.3  # of two boxes (intersection over union), above which they are one face: as in OpenCV


def build(program: Program, out: os.PathLike | str, data: str | None = None) -> dict[str, Any]:
    """Writes the page's folder: the page, the networks, their facts and the runtime.

    Args:
      program: the network, with everything inside.
      out: the folder; what is in it stays, but for the page's own files.
      data: a dataset to try the exported network on, see `check.load_faces`.

    Returns:
      The network's metadata.

    Raises:
      FileNotFoundError: the runtime has not been fetched; the message says how.
      As `check.load_faces`, `export.export` and `assets.fetch`.
    """
    out, runtime = pathlib.Path(out), SOURCE / RUNTIME
    if missing := [name for name in RUNTIME_FILES if not (runtime / name).is_file()]:
        raise FileNotFoundError(
            f"{runtime} lacks {', '.join(missing)}: fetch the runtime with npm install --prefix {SOURCE}"
        )
    detector = assets.fetch_yunet()
    (out / "ort").mkdir(parents=True, exist_ok=True)
    faces = check.load_faces(program, data)
    metadata = export.export(program, "onnx", out / "model.onnx", "float32", faces)
    shutil.copyfile(detector, out / "detector.onnx")
    for name in RUNTIME_FILES:
        shutil.copyfile(runtime / name, out / "ort" / name)
    for pattern in PAGE_FILES:
        for path in SOURCE.glob(pattern):
            shutil.copyfile(path, out / path.name)
    write_atomically(out / "page.json", (json.dumps(_facts(metadata), indent=2) + "\n").encode())
    return metadata


def _facts(metadata: dict[str, Any]) -> dict[str, Any]:
    """What the page has to know."""
    return {
        "model": metadata,
        "detector": {
            "source": f"YuNet, Apache-2.0, {assets.YUNET_URL}",
            "min_score": YuNet.MIN_SCORE,
            "overlap": OVERLAP,
            "frame_scale": YuNet.SCALE,
            "frame_down": YuNet.DOWN,
            "least_tilt": LEAST_TILT,
        },
        "unsure_below": UNSURE_BELOW,
    }
