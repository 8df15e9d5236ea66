"""The page that runs an exported network in the browser, as a folder for any static file host."""

import json
import os
import pathlib
import shutil
from typing import Any

from fer_jax.files import write_atomically
from fer_jax.inference.exports import check, export
from fer_jax.inference.exports.program import Program
from fer_jax.pretrained import download

SOURCE = pathlib.Path(__file__).resolve().parents[3] / "web"
RUNTIME = pathlib.Path("node_modules", "onnxruntime-web", "dist")
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
PAGE_FILES = ("*.html", "*.css", "*.js", "*.svg")

FOLDER = "detectors"  # of the cache
YUNET_URL = (
    "https://github.com/opencv/opencv_zoo/raw/main/models/face_detection_yunet/"
    "face_detection_yunet_2023mar.onnx"
)
YUNET_CHECKSUM = "sha256:8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
MIN_SCORE, OVERLAP = 0.6, 0.3
# The frame that the network sees: its side over the longer side of YuNet's box, and how far its centre lies
# below the box's, as a share of the side.
FRAME_SCALE, FRAME_DOWN = 1.0, 0.0
UNSURE_BELOW = 0.5


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
      As `check.load_faces`, `export.export` and `download.fetch`.
    """
    out, runtime = pathlib.Path(out), SOURCE / RUNTIME
    if missing := [name for name in RUNTIME_FILES if not (runtime / name).is_file()]:
        raise FileNotFoundError(
            f"{runtime} lacks {', '.join(missing)}: fetch the runtime with npm install --prefix {SOURCE}"
        )
    detector = download.fetch(YUNET_URL, checksum=YUNET_CHECKSUM, folder=FOLDER, megabytes=0.2)
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
            "source": f"YuNet, Apache-2.0, {YUNET_URL}",
            "min_score": MIN_SCORE,
            "overlap": OVERLAP,
            "frame_scale": FRAME_SCALE,
            "frame_down": FRAME_DOWN,
        },
        "unsure_below": UNSURE_BELOW,
    }
