"""Sheets of faces with their Grad-CAM, one a class, and the mean map of each class."""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from fer_jax.data.emotions import class_names
from fer_jax.data.faces import Faces
from fer_jax.evaluation.plots import new_figure
from fer_jax.io_utils import write_atomically
from fer_jax.pretrained.registry import network_name

SHOWN = 12  # faces of a class that are taken for what they are, and as many that are not
_SIDE = 192  # of the pictures of faces
_ALPHA = 0.45


def write_report(
    out_dir: os.PathLike | str, probs: np.ndarray, maps: np.ndarray, faces: Faces, facts: dict[str, Any]
) -> dict[str, Any]:
    """Writes a sheet for each class (angry.png, ...), mean_maps.png, saliency.md and, last, saliency.json.

    Args:
      out_dir: a folder that exists; an older report in it is replaced.
      probs: float [N, K], rows that sum to 1.
      maps: float [N, h, w], at least 0, of the class that each face is taken for.
      faces: N faces.
      facts: JSON that the report repeats: 'model', 'emotions' (the K classes), 'labels', 'checkpoint',
        'split', 'data', 'data_hash' and others.

    Returns:
      What saliency.json holds: the facts, the maps' size and what is on each sheet, in order.

    Raises:
      OSError: `out_dir` cannot be written.
    """
    out_dir, names = pathlib.Path(out_dir), facts["emotions"]
    old_sheets = (f"{name}.png" for name in class_names(8))
    for name in ("saliency.json", "saliency.md", "mean_maps.png", *old_sheets):
        (out_dir / name).unlink(missing_ok=True)
    predicted, sheets = probs.argmax(axis=1), {}
    for label, name in enumerate(names):
        of_class = faces.labels == label
        if not of_class.any():
            continue
        parts = {
            "right": spread(np.flatnonzero(of_class & (predicted == label)), probs.max(axis=1)),
            "mistaken": spread(np.flatnonzero(of_class & (predicted != label)), probs.max(axis=1)),
        }
        plot_sheet(label, names, parts, probs, maps, faces.images, out_dir / f"{name}.png")
        sheets[name] = {
            part: [
                {
                    "id": str(faces.ids[i]),
                    "prediction": names[predicted[i]],
                    "confidence": float(probs[i].max()),
                }
                for i in chosen
            ]
            for part, chosen in parts.items()
        }
    plot_mean_maps(probs, maps, faces, names, out_dir / "mean_maps.png")
    report = facts | {
        "num_examples": len(faces),
        "map_shape": list(maps.shape[1:]),
        "empty_maps": int((maps.max(axis=(1, 2)) == 0).sum()),
        "sheets": sheets,
    }
    write_atomically(out_dir / "saliency.md", _page(report).encode())
    text = json.dumps(report, indent=2, sort_keys=True) + "\n"
    write_atomically(out_dir / "saliency.json", text.encode())
    return report


def spread(indices: np.ndarray, confidence: np.ndarray, count: int = SHOWN) -> np.ndarray:
    """Up to `count` of the indices int [M], evenly from the highest confidence [N] to the lowest."""
    ranked = indices[np.argsort(-confidence[indices], kind="stable")]
    places = np.linspace(0, len(ranked) - 1, min(count, len(ranked)))
    return ranked[places.round().astype(int)]


def overlay(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """A face uint8 [H, W, 1 or 3] under its map float [h, w], at least 0, in colours: uint8 [192, 192, 3].

    The map is stretched over the face, its highest value red whatever it is; one that is 0 everywhere
    darkens the face.
    """
    face = np.asarray(_picture(image).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).convert("RGB"))
    heat = Image.fromarray((heat / max(heat.max(), 1e-12)).astype(np.float32))
    heat = np.clip(np.asarray(heat.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)), 0, 1)
    colors = 255 * matplotlib.colormaps["turbo"](heat)[..., :3]
    return np.rint((1 - _ALPHA) * face + _ALPHA * colors).astype(np.uint8)


def _picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def plot_sheet(
    label: int,
    names: Sequence[str],
    parts: dict[str, Sequence[int]],
    probs: np.ndarray,
    maps: np.ndarray,
    images: Any,
    path: pathlib.Path,
) -> Figure:
    """The faces of a class that are taken for what they are, and below them those that are not.

    Args:
      label: the class.
      names: of the K classes.
      parts: indices of the faces, 'right' and 'mistaken'.
      probs: float [N, K].
      maps: float [N, h, w].
      images: uint8 [N, H, W, C], an array or an object indexed by integer arrays.
      path: of the picture.
    """
    columns, width, height, head = 4, 2.16, 1.26, 0.36
    rows = [-(-len(chosen) // columns) for chosen in parts.values()]
    total = sum(rows) * height + head * sum(1 for n in rows if n)
    figure, axis = new_figure(1.5 * columns * width, 1.5 * total + 0.5)
    titles = {
        "right": f"{names[label]}, taken for {names[label]}",
        "mistaken": f"{names[label]}, taken for something else",
    }
    top = 0.0
    for (part, chosen), count in zip(parts.items(), rows, strict=True):
        if not count:
            continue
        axis.text(0, top + head / 2, titles[part], fontsize=12, va="center", weight="bold")
        top += head
        for place, (i, image) in enumerate(zip(chosen, images[np.asarray(chosen)], strict=True)):
            left, y = place % columns * width, top + place // columns * height
            face = np.asarray(_picture(image).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC).convert("RGB"))
            pair = np.concatenate([face, overlay(image, maps[i])], axis=1)
            axis.imshow(pair, extent=(left, left + 2, y + 1, y))
            text = f"taken for {names[probs[i].argmax()]} {100 * probs[i].max():.0f} %"
            if part == "mistaken":
                text += f" ({names[label]} {100 * probs[i, label]:.0f} %)"
            axis.text(left + 1, y + 1.03, text, fontsize=9, ha="center", va="top")
        top += count * height
    axis.set(xlim=(0, columns * width - 0.16), ylim=(top, 0))
    axis.axis("off")
    title = "Grad-CAM of the class that each face is taken for, from the surest to the least sure"
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=100)
    return figure


def plot_mean_maps(
    probs: np.ndarray, maps: np.ndarray, faces: Faces, names: Sequence[str], path: pathlib.Path
) -> Figure:
    """For each class the mean face and the mean map, each scaled to 1 first, of the right predictions."""
    figure, axes = new_figure(2 * len(names), 2.9, 1, len(names), squeeze=False)
    right = probs.argmax(axis=1) == faces.labels
    highest = maps.max(axis=(1, 2))
    for label, (name, axis) in enumerate(zip(names, axes[0], strict=True)):
        chosen = np.flatnonzero(right & (faces.labels == label) & (highest > 0))
        axis.axis("off")
        axis.set_title(f"{name}\n{len(chosen):,} faces", fontsize=11)
        if not len(chosen):
            continue
        total = sum(faces.images[part].sum(axis=0, dtype=np.int64) for part in _parts(chosen))
        mean = np.rint(total / len(chosen)).astype(np.uint8)
        axis.imshow(overlay(mean, (maps[chosen] / highest[chosen, None, None]).mean(axis=0)))
    figure.suptitle(
        "Mean face and mean Grad-CAM of the faces that are taken for what they are and whose map is not dark "
        "all over",
        fontsize=11,
    )
    figure.savefig(path, dpi=100)
    return figure


def _parts(indices: np.ndarray, size: int = 1024) -> list[np.ndarray]:
    """The indices in parts; bounds the memory of streamed splits."""
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def _page(report: dict[str, Any]) -> str:
    """saliency.md."""
    high, wide = report["map_shape"]
    lines = [
        f"# Where {network_name(report['checkpoint'], report['model'])} looks",
        "",
        f"Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391) of {report['num_examples']:,} faces of "
        f"`{report['split']}` with labels `{report['labels']}` ({report['data']['name']}, content hash "
        f"`{report['data_hash']}`). The weights are `{report['checkpoint']}`.",
        "",
        f"The gradient of the logit that a face is taken for weighs the channels of the network's last "
        f"feature map; red is where their sum is highest, dark where nothing speaks for the class. The map "
        f"has {high} x {wide} places, stretched over the face, and each is scaled by its own maximum: it "
        "tells where the evidence lies, not how much there is, and nothing finer than one of its places. "
        f"{report['empty_maps']:,} of the maps are dark all over: by this measure no place of those "
        "faces speaks for the class.",
        "",
        "![mean maps](mean_maps.png)",
    ]
    for name, parts in report["sheets"].items():
        shown = f"{len(parts['right'])} taken for {name}, {len(parts['mistaken'])} for something else"
        lines += [
            "",
            f"## {name}",
            "",
            f"{shown}; their ids are in `saliency.json`.",
            "",
            f"![{name}]({name}.png)",
        ]
    return "\n".join([*lines, ""])
