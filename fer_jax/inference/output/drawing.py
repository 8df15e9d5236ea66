"""Draws what was found onto a picture: boxes, and labels that can be read at any size."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fer_jax.data.decoding import to_rgb
from fer_jax.inference.structures import Box, Face

# Apart for colour-blind eyes, too (after Okabe and Ito 2008), and dark or light enough for either page.
COLOURS = {
    "angry": "#d55e00",
    "disgust": "#009e73",
    "fear": "#a04fb5",
    "happy": "#e5a800",
    "sad": "#0072b2",
    "surprise": "#56b4e9",
    "neutral": "#8a8f98",
    "contempt": "#a0522d",
}
UNSURE_COLOUR = "#ffffff"
_DARK = "#101418"

_SMALLEST_TEXT = 10  # pixels; smaller letters run together
# Text is so much of the picture's longer side: little in a crowd, more about a face that fills the picture.
_LEAST_SHARE, _GREATEST_SHARE = 1 / 50, 1 / 26
_FACE_SHARE = 0.17  # of the face's width, in between
_DASH = 5  # length of an unsure box's dashes in widths of its line, if it is not small

_Place = tuple[float, float, float, float]  # left, top, right, bottom


def draw(image: np.ndarray, faces: Sequence[Face], numbers: Sequence[int] | None = None) -> np.ndarray:
    """The picture with a box and a label about each face.

    A box has the emotion's colour, and the label its name, so that no one needs the colours. Where the
    network is unsure the box is white and dashed, and the label says so.

    Args:
      image: uint8 [H, W] or [H, W, 3].
      faces: found in it.
      numbers: what the faces are called, such as their tracks; None counts several from 1.

    Returns:
      uint8 [H, W, 3], a copy.
    """
    picture = Image.fromarray(to_rgb(image).copy())
    if numbers is None and len(faces) > 1:
        numbers = range(1, len(faces) + 1)
    canvas, labels = ImageDraw.Draw(picture), []
    places = [_inside(face.box, *picture.size) for face in faces]
    for face, place in zip(faces, places, strict=True):
        _draw_box(canvas, face, place, max(1, round(max(picture.size) / 250)))
    # After all the boxes, so that none crosses a label.
    for i, (face, place) in enumerate(zip(faces, places, strict=True)):
        texts = [f"{numbers[i]}: {text}" if numbers else text for text in _texts(face)]
        others = places[:i] + places[i + 1 :]
        labels.append(_draw_label(canvas, texts, _fill(face), place, [*others, *labels, *labels]))
    return np.asarray(picture)


def _texts(face: Face) -> list[str]:
    """What a label may say, the longest first."""
    name, percent = face.emotion, f"{100 * face.confidence:.0f} %"
    if face.unsure:
        return [f"Unsure: {name}? {percent}", f"Unsure: {name}?", "Unsure"]
    return [f"{name} {percent}", name]


def _fill(face: Face) -> str:
    return UNSURE_COLOUR if face.unsure else COLOURS[face.emotion]


def _inside(box: Box, width: int, height: int) -> _Place:
    """The part of a box that lies in the picture, at least a pixel of it."""
    left, top = min(max(box.left, 0), width - 1), min(max(box.top, 0), height - 1)
    right = min(max(box.left + box.width, left + 1), width)
    bottom = min(max(box.top + box.height, top + 1), height)
    return left, top, right - 1, bottom - 1


def _draw_box(canvas: ImageDraw.ImageDraw, face: Face, place: _Place, width: int) -> None:
    """A line of `width` pixels on a darker one, inwards from the edge."""
    left, top, right, bottom = map(round, place)
    canvas.rectangle((left, top, right, bottom), outline=_DARK, width=width + 2)
    # A small box has no room for two lines.
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


def _draw_label(
    canvas: ImageDraw.ImageDraw, texts: list[str], fill: str, face: _Place, taken: list[_Place]
) -> _Place:
    """Writes a face's label where it hides least of what is taken; the place that it took."""
    longer = max(canvas.im.size)
    size = np.clip(_FACE_SHARE * (face[2] - face[0]), _LEAST_SHARE * longer, _GREATEST_SHARE * longer)
    font = ImageFont.load_default(max(_SMALLEST_TEXT, round(size)))
    pad = 0.3 * font.size
    widths = [canvas.textlength(text, font) + 2 * pad for text in texts]
    fitting = [i for i, width in enumerate(widths) if width <= canvas.im.size[0]] or [len(texts) - 1]
    height = font.size + 2 * pad
    # Of those that hide as much min takes the first: the longest text, above the face.
    found = {i: _find_place(canvas.im.size, face, widths[i], height, taken) for i in fitting}
    best = min(found, key=lambda i: _hidden(found[i], taken))
    place = found[best]
    canvas.rectangle(tuple(map(round, place)), fill=fill, outline=_DARK)
    middle = ((place[0] + place[2]) / 2, (place[1] + place[3]) / 2)
    canvas.text(middle, texts[best], _ink(fill), font, anchor="mm")
    return place


def _find_place(
    size: tuple[int, int], face: _Place, width: float, height: float, taken: list[_Place]
) -> _Place:
    """Above the face, else below it, else over its edges: in the picture, where it hides least."""
    left, top, right, bottom = face
    places = []
    for y in (top - height, bottom + 1, top, bottom - height):
        for x in (left, right - width):
            inside_x = max(0, min(x, size[0] - 1 - width))
            if 0 <= y <= size[1] - 1 - height:
                places.append((inside_x, y, inside_x + width, y + height))
    if not places:
        return left, 0, left + width, height
    return min(places, key=lambda place: _hidden(place, [*taken, face]))


def _hidden(place: _Place, taken: list[_Place]) -> float:
    """How much of what is taken a place hides, in pixels."""
    return sum(_shared(place, other) for other in taken)


def _shared(one: _Place, other: _Place) -> float:
    """The area that two places share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0) * max(height, 0)


def _ink(fill: str) -> str:
    """White or nearly black: what stands out more from a colour (WCAG 2's relative luminance)."""
    levels = np.array([int(fill[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    return _DARK if linear @ (0.2126, 0.7152, 0.0722) > 0.18 else "#ffffff"
