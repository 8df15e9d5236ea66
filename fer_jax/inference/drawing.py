"""Draws boxes and labels of faces onto images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_jax.data.decoding import to_rgb
from fer_jax.inference.structures import Box, Face, Track

# Distinguishable with color blindness (after Okabe and Ito 2008), on light and dark backgrounds.
COLORS = {
    "angry": "#d55e00",
    "disgust": "#009e73",
    "fear": "#a04fb5",
    "happy": "#e5a800",
    "sad": "#0072b2",
    "surprise": "#56b4e9",
    "neutral": "#8a8f98",
    "contempt": "#a0522d",
}
UNSURE_COLOR = "#ffffff"
_DARK = "#101418"

_MIN_TEXT = 10  # pixels; smaller text is illegible
# Text height relative to the longer image side: between these, by the width of the face.
_MIN_SHARE, _MAX_SHARE = 1 / 50, 1 / 26
_FACE_SHARE = 0.17  # of the face width
_DASH = 5  # length of the dashes of unsure boxes, in line widths


def draw_tracks(image: np.ndarray, faces: Sequence[Face], tracks: Sequence[Track] = ()) -> np.ndarray:
    """Draws faces as `draw`, with the track IDs and smoothed emotions of tracked faces."""
    if not tracks:
        return draw(image, faces)
    smooth = [track.smooth(face) for face, track in zip(faces, tracks, strict=True)]
    return draw(image, smooth, [track.number for track in tracks])


def draw(image: np.ndarray, faces: Sequence[Face], numbers: Sequence[int] | None = None) -> np.ndarray:
    """Returns a copy, in RGB, of an image uint8 [H, W] or [H, W, 3] with a box and a label for each face.

    Boxes have the color of the emotion, and labels its name. If the network is unsure, the box is white and
    dashed, and the label says so. `numbers` of the faces may be track IDs; None numbers several faces from 1.
    """
    drawn = Image.fromarray(to_rgb(image).copy())
    if numbers is None and len(faces) > 1:
        numbers = range(1, len(faces) + 1)
    canvas, labels = ImageDraw.Draw(drawn), []
    places = [_inside(face.box, *drawn.size) for face in faces]
    for face, place in zip(faces, places, strict=True):
        _draw_box(canvas, face, place, max(1, round(max(drawn.size) / 250)))
    # After all boxes, so that no box crosses a label.
    for i, (face, place) in enumerate(zip(faces, places, strict=True)):
        texts = [f"{numbers[i]}: {text}" if numbers else text for text in _texts(face)]
        others = places[:i] + places[i + 1 :]
        labels.append(_draw_label(canvas, texts, _fill(face), place, [*others, *labels, *labels]))
    return np.asarray(drawn)


def _texts(face: Face) -> list[str]:
    """Returns the possible texts of a label, longest first."""
    name, percent = face.emotion, f"{100 * face.confidence:.0f} %"
    if face.unsure:
        return [f"Unsure: {name}? {percent}", f"Unsure: {name}?", "Unsure"]
    return [f"{name} {percent}", name]


def _fill(face: Face) -> str:
    return UNSURE_COLOR if face.unsure else COLORS[face.emotion]


def _inside(box: Box, width: int, height: int) -> Box:
    """Clips a box to the image, to at least one pixel; edges are inclusive."""
    left, top = min(max(box.left, 0), width - 1), min(max(box.top, 0), height - 1)
    right, bottom = min(max(box.edges[2], left + 1), width), min(max(box.edges[3], top + 1), height)
    return Box(left, top, right - 1 - left, bottom - 1 - top)


def _draw_box(canvas: ImageDraw.ImageDraw, face: Face, place: Box, width: int) -> None:
    """Draws a line of `width` pixels on a darker one, inside the edge."""
    left, top, right, bottom = map(round, place.edges)
    canvas.rectangle((left, top, right, bottom), outline=_DARK, width=width + 2)
    # A small box has a single line.
    inset = 1 if min(right - left, bottom - top) > 4 * width else 0
    left, top, right, bottom = left + inset, top + inset, right - inset, bottom - inset
    if not face.unsure:
        canvas.rectangle((left, top, right, bottom), outline=_fill(face), width=width)
        return
    dash = max(2, min(_DASH * width, (right - left) // 7))
    half = width // 2
    for start in range(left, right + 1, 2 * dash):
        for y in (top + half, bottom - width + 1 + half):
            canvas.line((start, y, min(start + dash, right), y), _fill(face), width)
    for start in range(top, bottom + 1, 2 * dash):
        for x in (left + half, right - width + 1 + half):
            canvas.line((x, start, x, min(start + dash, bottom)), _fill(face), width)


def _draw_label(canvas: ImageDraw.ImageDraw, texts: list[str], fill: str, face: Box, taken: list[Box]) -> Box:
    """Draws a label where it covers the least of `taken`; returns its box."""
    longer = max(canvas.im.size)
    size = np.clip(_FACE_SHARE * face.width, _MIN_SHARE * longer, _MAX_SHARE * longer)
    font: Any = ImageFont.load_default(max(_MIN_TEXT, round(size)))
    pad = 0.3 * font.size
    widths = [canvas.textlength(text, font) + 2 * pad for text in texts]
    fitting = [i for i, width in enumerate(widths) if width <= canvas.im.size[0]] or [len(texts) - 1]
    height = font.size + 2 * pad
    # In a tie, min selects the first: the longest text, above the face.
    found = {i: _find_place(canvas.im.size, face, widths[i], height, taken) for i in fitting}
    best = min(found, key=lambda i: _hidden(found[i], taken))
    place = found[best]
    canvas.rectangle(tuple(map(round, place.edges)), fill=fill, outline=_DARK)
    canvas.text(place.center, texts[best], _ink(fill), font, anchor="mm")
    return place


def _find_place(size: tuple[int, int], face: Box, width: float, height: float, taken: list[Box]) -> Box:
    """Returns the box above, below, or over the edges of the face that covers the least of `taken`."""
    left, top, right, bottom = face.edges
    places = [
        Box(max(0, min(x, size[0] - 1 - width)), y, width, height)
        for y in (top - height, bottom + 1, top, bottom - height)
        for x in (left, right - width)
        if 0 <= y <= size[1] - 1 - height
    ]
    return min(places or [Box(left, 0, width, height)], key=lambda place: _hidden(place, [*taken, face]))


def _hidden(place: Box, taken: list[Box]) -> float:
    """Returns the area of `taken` that a box covers, in pixels."""
    return sum(place.intersection(other) for other in taken)


def _ink(fill: str) -> str:
    """Returns white or near black, whichever has more contrast (WCAG 2 relative luminance)."""
    levels = np.array([int(fill[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return _DARK if linear @ (0.2126, 0.7152, 0.0722) > 0.18 else "#ffffff"
