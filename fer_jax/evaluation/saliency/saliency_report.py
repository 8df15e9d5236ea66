"""Writes sheets of faces with their Grad-CAM by class, and mean heatmaps."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from fer_jax import plotting, tables
from fer_jax.data.emotions import class_names
from fer_jax.data.faces import Faces
from fer_jax.io_utils import write_atomically, write_json
from fer_jax.pretrained.registry import network_name

SHOWN = 12  # correctly classified faces per class, and as many errors
_SIDE = 192  # of the plotted faces, in pixels
_ALPHA = 0.45


def write_report(
    out_dir: os.PathLike | str, probs: np.ndarray, maps: np.ndarray, faces: Faces, metadata: dict[str, Any]
) -> dict[str, Any]:
    """Writes a sheet per class (angry.png, ...), mean_maps.png, saliency.md, and, last, saliency.json.

    Args:
      out_dir: existing output folder; an older report in it is replaced.
      probs: float [N, K], rows that sum to 1.
      maps: float [N, h, w], at least 0, heatmaps of the predicted classes.
      faces: N faces.
      metadata: JSON for the report: 'model', 'emotions' (the K classes), 'labels', 'checkpoint',
        'split', 'data', 'data_hash' and others.

    Returns:
      The content of saliency.json: the metadata, the size of the heatmaps, and the faces on each sheet.

    Raises:
      OSError: `out_dir` cannot be written.
    """
    out_dir, names = pathlib.Path(out_dir), metadata["emotions"]
    old_sheets = (f"{name}.png" for name in class_names(8))
    for name in ("saliency.json", "saliency.md", "mean_maps.png", *old_sheets):
        (out_dir / name).unlink(missing_ok=True)
    predicted, sheets = probs.argmax(axis=1), {}
    rows = [
        {"id": str(name), "prediction": names[place], "confidence": float(row.max())}
        for name, place, row in zip(faces.ids, predicted, probs, strict=True)
    ]
    for label, name in enumerate(names):
        of_class = faces.labels == label
        if not of_class.any():
            continue
        parts = {
            "right": spread(np.flatnonzero(of_class & (predicted == label)), probs.max(axis=1)),
            "mistaken": spread(np.flatnonzero(of_class & (predicted != label)), probs.max(axis=1)),
        }
        plot_sheet(label, names, parts, probs, maps, faces.images, out_dir / f"{name}.png")
        sheets[name] = {part: [rows[i] for i in chosen] for part, chosen in parts.items()}
    plot_mean_maps(probs, maps, faces, names, out_dir / "mean_maps.png")
    report = metadata | {
        "num_examples": len(faces),
        "map_shape": list(maps.shape[1:]),
        "empty_maps": int((maps.max(axis=(1, 2)) == 0).sum()),
        "sheets": sheets,
    }
    model = network_name(report["checkpoint"], report["model"])
    page = tables.render(__package__, "saliency.md.j2", report=report, model=model)
    write_atomically(out_dir / "saliency.md", page.encode())
    write_json(out_dir / "saliency.json", report)
    return report


def spread(indices: np.ndarray, confidence: np.ndarray, count: int = SHOWN) -> np.ndarray:
    """Selects up to `count` of the indices int [M], evenly from the highest confidence [N] to the lowest."""
    ranked = indices[np.argsort(-confidence[indices], kind="stable")]
    places = np.linspace(0, len(ranked) - 1, min(count, len(ranked)))
    return ranked[places.round().astype(int)]


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Overlays a face uint8 [H, W, 1 or 3] with a heatmap float [h, w], at least 0, as uint8 [192, 192, 3].

    The heatmap is stretched over the face and scaled by its maximum; an all-zero heatmap darkens the face.
    """
    face = _enlarged(image)
    small = Image.fromarray((heat / max(heat.max(), 1e-12)).astype(np.float32))
    heat = np.clip(np.asarray(small.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)), 0, 1)
    colors = 255 * matplotlib.colormaps["turbo"](heat)[..., :3]
    return np.rint((1 - _ALPHA) * face + _ALPHA * colors).astype(np.uint8)


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Returns a face uint8 [H, W, 1 or 3] as uint8 [192, 192, 3]."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    return np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).convert("RGB"))


def plot_sheet(
    label: int,
    names: Sequence[str],
    parts: Mapping[str, Any],
    probs: np.ndarray,
    maps: np.ndarray,
    images: Any,
    path: pathlib.Path,
) -> "plotting.Figure":
    """Plots faces of a class with their heatmaps: correctly classified faces, then errors.

    `parts` are the indices of the faces, 'right' and 'mistaken'; the others are as in `write_report`.
    """
    columns, pictures, captions, places, wrong = 8, [], [], [], []
    for part, chosen in parts.items():
        first = -(-len(pictures) // columns) * columns  # of a row
        for i, image in zip(chosen, images[np.asarray(chosen)], strict=True):
            pictures += [_enlarged(image), overlay(image, maps[i])]
            captions.append(f"{names[int(probs[i].argmax())]} {100 * probs[i].max():.0f} %")
            captions.append(f"{names[label]} {100 * probs[i, label]:.0f} %" if part == "mistaken" else "")
            wrong += [part == "mistaken"] * 2
        places += range(first, first + 2 * len(chosen))
    title = f"{names[label]}: Grad-CAM of the prediction; errors are red, with the probability of the label"
    return plotting.plot_faces(pictures, captions, title, path, columns, places, wrong)


def plot_mean_maps(
    probs: np.ndarray, maps: np.ndarray, faces: Faces, names: Sequence[str], path: pathlib.Path
) -> "plotting.Figure":
    """Plots the mean face and the mean scaled heatmap of the correct predictions of each class."""
    figure, axes = plotting.new_figure(2 * len(names), 2.9, 1, len(names), squeeze=False)
    right = probs.argmax(axis=1) == faces.labels
    highest = maps.max(axis=(1, 2))
    for label, (name, axis) in enumerate(zip(names, axes[0], strict=True)):
        chosen = np.flatnonzero(right & (faces.labels == label) & (highest > 0))
        axis.axis("off")
        axis.set_title(f"{name}\n{len(chosen):,} faces", fontsize=11)
        if not len(chosen):
            continue
        # In blocks, to bound the memory of streamed splits.
        parts = np.split(chosen, range(1024, len(chosen), 1024))
        total = sum(faces.images[part].sum(axis=0, dtype=np.int64) for part in parts)
        mean = np.rint(total / len(chosen)).astype(np.uint8)
        axis.imshow(overlay(mean, (maps[chosen] / highest[chosen, None, None]).mean(axis=0)))
    title = "Mean face and mean Grad-CAM of correctly classified faces with a non-zero heatmap"
    figure.suptitle(title, fontsize=11)
    return plotting.save(figure, path, dpi=100)
