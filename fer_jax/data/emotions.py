"""The seven emotions, and contempt: their names, their ids and the names other datasets give them."""

import re

# The order of the FER2013 challenge; an emotion's id is its place here. Folder copies sort
# alphabetically (neutral 4, sad 5, surprise 6), so everything in this project maps by name.
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CONTEMPT = "contempt"  # FER+'s eighth

_ALIASES = {
    "angry": ("anger",),
    "disgust": ("disgusted", "disgusting"),
    "fear": ("fearful", "afraid", "scared"),
    "happy": ("happiness", "joy"),
    "sad": ("sadness",),
    "surprise": ("surprised", "suprise", "suprised"),
    "neutral": ("neutrality",),
}
_CANONICAL = {alias: name for name, others in _ALIASES.items() for alias in (name, *others)}


def class_names(num_classes: int) -> tuple[str, ...]:
    """What a network with so many outputs tells apart, in the order of its outputs.

    Raises:
      ValueError: when it is neither 7 (`EMOTIONS`) nor 8 (these and contempt).
    """
    names = (*EMOTIONS, CONTEMPT)[:num_classes]
    if num_classes not in (7, 8):
        raise ValueError(
            f"{num_classes} classes; expected 7 ({', '.join(EMOTIONS)}) or 8 (these and {CONTEMPT})"
        )
    return names


class UnknownEmotionError(ValueError):
    """A class name that is none of the seven emotions nor one of their usual variants."""


def canonical(name: str) -> str:
    """The emotion that `name` stands for, as written in `EMOTIONS`.

    Case, surrounding blanks and `_`, `-` or blanks inside do not matter. Numbers are not names:
    which order they count in differs between datasets (see `folders` for the one case in which they
    are accepted).

    Raises:
      UnknownEmotionError: when it is none of them (contempt, for one, is not among the seven).
    """
    key = re.sub(r"[\s_-]+", "", name).casefold()
    if key not in _CANONICAL:
        known = ", ".join(f"{name} ({', '.join(_ALIASES[name])})" for name in EMOTIONS)
        raise UnknownEmotionError(f"unknown emotion {name!r}; known ones and their variants: {known}")
    return _CANONICAL[key]


def emotion_id(name: str) -> int:
    """The id (0-6, the challenge's order) of an emotion's name or variant.

    Raises:
      UnknownEmotionError: see `canonical`.
    """
    return EMOTIONS.index(canonical(name))
