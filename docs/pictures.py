"""Draws the picture at the top of the README from the package's photograph and a stored result.

python docs/pictures.py     # or make pictures
"""

import io
import pathlib
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

OUT = ROOT / "docs" / "pictures" / "overview.png"


def main() -> None:
    """Writes the picture."""
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
    # A palette is a quarter of the size.
    Image.open(file).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(OUT, optimize=True)
    print(OUT)


if __name__ == "__main__":
    main()
