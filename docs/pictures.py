"""Draws the README's pictures: the package's photograph beside a stored result, and the app in Chromium.

python docs/pictures.py     # or make pictures
"""

import io
import pathlib
import shutil
import socket
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from fer_jax import Predictor, plotting  # noqa: E402
from fer_jax.evaluation import plots, predictions_file  # noqa: E402
from fer_jax.evaluation.compare import model_results  # noqa: E402
from fer_jax.evaluation.report import report  # noqa: E402
from fer_jax.inference.media.inputs import SAMPLE  # noqa: E402
from fer_jax.pretrained.registry import DEFAULT  # noqa: E402

OUT = ROOT / "docs" / "pictures"
APP = ROOT / "fer_jax" / "inference" / "app" / "app.py"


def draw_overview() -> io.BytesIO:
    """Draws the photograph, the confusion matrix, and the accuracy against the coverage."""
    stored = ROOT / "results" / DEFAULT / model_results.STORED
    names = model_results.read_metadata(stored)["emotions"]
    found = predictions_file.read(stored, names)
    figures = report.figures(found.probs, found.labels, found.groups, names)
    (prediction,) = Predictor.load()(SAMPLE)

    figure, (photo, matrix, curve) = plotting.new_figure(13.5, 4.6, columns=3, width_ratios=(0.8, 1.15, 1))
    photo.imshow(prediction.draw())
    photo.set_axis_off()
    photo.set_title("fer-jax predict", loc="left")
    plots.draw_confusion(matrix, np.array(figures["confusion_matrix"]), names, percent=True)
    low, high = (100 * value for value in figures["interval_95"]["accuracy"])
    score = f"{100 * figures['accuracy']:.1f} % ({low:.1f} - {high:.1f})"
    matrix.set_title(f"fer-jax evaluate: accuracy {score}", loc="left")
    plots.draw_risk_coverage(curve, figures)
    curve.set_title("Accuracy if unsure faces are left out", loc="left")

    file = io.BytesIO()
    figure.savefig(file, dpi=100)
    return file


def photograph_app() -> io.BytesIO:
    """Takes a screenshot of the app with its example photograph."""
    from playwright.sync_api import sync_playwright

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ("--server.headless=true", f"--server.port={port}")
    command = [sys.executable, "-m", "streamlit", "run", str(APP), *options]
    app = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        next(line for line in app.stdout if str(port) in line)  # it serves from now on
        with sync_playwright() as driver:
            chromium = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = chromium.new_page(viewport={"width": 1000, "height": 1370})
            page.set_default_timeout(60_000)  # milliseconds
            page.goto(f"http://localhost:{port}")
            page.get_by_role("button", name="A photograph").click()
            for text in ("Grad-CAM", "1 face found", "About this model"):  # each loads by itself
                page.get_by_text(text).first.wait_for()
            return io.BytesIO(page.screenshot())
    finally:
        app.terminate()


def main() -> None:
    """Writes the pictures."""
    for name, draw in (("overview.png", draw_overview), ("app.png", photograph_app)):
        # A palette is a quarter of the size.
        picture = Image.open(draw()).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        picture.save(OUT / name, optimize=True)
        print(OUT / name)


if __name__ == "__main__":
    main()
