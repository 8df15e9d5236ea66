"""Defines the seven emotions and contempt, their IDs, and their names in other datasets."""

import re

# In the order of the FER2013 challenge; the ID of an emotion is its index. Image folders sort alphabetically
# (neutral 4, sad 5, surprise 6), so this project maps classes by name.
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
CONTEMPT = "contempt"  # the eighth class of FER+

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
    """Returns the classes of a network with `num_classes` outputs, in order.

    Raises:
      ValueError: the number is neither 7 (`EMOTIONS`) nor 8 (with contempt).
    """
    names = (*EMOTIONS, CONTEMPT)[:num_classes]
    if num_classes not in (7, 8):
        raise ValueError(
            f"{num_classes} classes; expected 7 ({', '.join(EMOTIONS)}) or 8 (these and {CONTEMPT})"
        )
    return names


class UnknownEmotionError(ValueError):
    """A class name that is not an emotion or one of its variants."""


def canonical(name: str) -> str:
    """Returns the emotion of a name or variant, as in `EMOTIONS`.

    Ignores case, blanks, `_`, and `-`. Numbers are unknown, because their order differs between datasets.

    Raises:
      UnknownEmotionError: the name is unknown (contempt, for example, is not among the seven).
    """
    key = re.sub(r"[\s_-]+", "", name).casefold()
    if key not in _CANONICAL:
        known = ", ".join(f"{name} ({', '.join(_ALIASES[name])})" for name in EMOTIONS)
        raise UnknownEmotionError(f"unknown emotion {name!r}; known emotions and variants: {known}")
    return _CANONICAL[key]


def emotion_id(name: str) -> int:
    """Returns the ID (0-6, in the order of the challenge) of an emotion's name or variant.

    Raises:
      UnknownEmotionError: as `canonical`.
    """
    return EMOTIONS.index(canonical(name))
