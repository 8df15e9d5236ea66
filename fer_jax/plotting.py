"""Creates figures without pyplot, which has global state, and sheets of faces."""

import pathlib
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # importing Matplotlib takes a second
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
    from matplotlib.image import AxesImage as AxesImage

_LETTERS_PER_INCH = 11  # in a 12-point title, at most


def plot_faces(
    images: Sequence[np.ndarray] | np.ndarray,
    captions: Sequence[str],
    title: str,
    path: pathlib.Path,
    columns: int = 8,
    places: Sequence[int] | None = None,
    wrong: Sequence[bool] | None = None,
) -> "Figure":
    """Draws a sheet of faces with captions.

    Args:
      images: N faces uint8 [H, W], [H, W, 1] or [H, W, 3].
      captions: one per face, all with the same number of lines.
      title: title of the sheet.
      path: output file.
      columns: faces per row.
      places: ascending cell index of each face, row by row; None for consecutive cells.
      wrong: faces whose captions are red; None for none.
    """
    if places is None:
        columns, places = min(columns, max(len(images), 4)), range(len(images))
    rows = max(places, default=0) // columns + 1
    above = 0.2 + 0.16 * max((caption.count("\n") for caption in captions), default=0)
    width, height = 1.08, 1.02 + above  # of a cell, in faces; a single axis draws faster than many
    across = 1.45 * width * columns
    lines = textwrap.wrap(title, int(_LETTERS_PER_INCH * across))
    figure, axis = new_figure(across, 1.45 * height * rows + 0.5 + 0.2 * (len(lines) - 1))
    inks = ["black"] * len(images) if wrong is None else ["C3" if one else "black" for one in wrong]
    for i, image, caption, ink in zip(places, images, captions, inks, strict=True):
        left, top = i % columns * width, i // columns * height
        pixels = image[..., 0] if image.shape[-1] == 1 else image
        # The longer side fills the cell.
        high, wide = np.array(image.shape[:2]) / max(image.shape[:2])
        extent = (left + 0.5 - wide / 2, left + 0.5 + wide / 2, top + high, top)
        axis.imshow(pixels, "gray", vmin=0, vmax=255, interpolation="bicubic", extent=extent)
        axis.text(left + 0.5, top - 0.06, caption, fontsize=8.5, ha="center", va="baseline", color=ink)
    axis.set(xlim=(0, columns * width - 0.08), ylim=(rows * height - above, -above))
    axis.axis("off")
    figure.suptitle("\n".join(lines), fontsize=12)
    return save(figure, path)


def new_figure(width: float, height: float, rows: int = 1, columns: int = 1, **how) -> tuple["Figure", Any]:
    """Returns a figure (size in inches) and its axes, as `Figure.subplots(**how)` returns them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, **how)


def save(figure: "Figure", path: pathlib.Path, dpi: int = 110) -> "Figure":
    """Writes a figure as PNG and returns it."""
    figure.savefig(path, dpi=dpi)
    return figure
