"""Names the seven emotions and contempt, their ids, and what other datasets call them."""

import re

# In the order of the FER2013 challenge; an emotion's id is its index. Copies in folders sort
# alphabetically (neutral 4, sad 5, surprise 6), so this project maps classes by name.
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
    """Returns the classes of a network with so many outputs, in the order of its outputs.

    Raises:
      ValueError: the number is neither 7 (`EMOTIONS`) nor 8 (these and contempt).
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
    """Returns the emotion that `name` stands for, as written in `EMOTIONS`.

    Case, blanks, `_` and `-` do not matter. Numbers are not names, as their order differs between datasets
    (`folders` accepts them in one case).

    Raises:
      UnknownEmotionError: it is none of them (contempt, for example, is not among the seven).
    """
    key = re.sub(r"[\s_-]+", "", name).casefold()
    if key not in _CANONICAL:
        known = ", ".join(f"{name} ({', '.join(_ALIASES[name])})" for name in EMOTIONS)
        raise UnknownEmotionError(f"unknown emotion {name!r}; known ones and their variants: {known}")
    return _CANONICAL[key]


def emotion_id(name: str) -> int:
    """Returns the id (0-6, the challenge's order) of an emotion's name or variant.

    Raises:
      UnknownEmotionError: as `canonical`.
    """
    return EMOTIONS.index(canonical(name))
