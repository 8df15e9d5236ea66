"""The seven emotions: their names, their ids and the names other datasets give them."""

import re

# The order of the FER2013 challenge; an emotion's id is its place here. Folder copies sort
# alphabetically (neutral 4, sad 5, surprise 6), so everything in this project maps by name.
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")

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
