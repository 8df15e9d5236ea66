"""Decides what the classes of a source are: by their names, by --map, or by a dataset's numbering."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from fer_jax.data.emotions import EMOTIONS, UnknownEmotionError, canonical, emotion_id
from fer_jax.data.sources.record import SourceError

DROP = "drop"  # instead of an emotion, for classes that are left out
FER2013 = {str(number): emotion for number, emotion in enumerate(EMOTIONS)}

# How datasets number their classes, where that is not FER2013's order.
NUMBERINGS = {
    "AffectNet": (0, "neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", DROP),
    "RAF-DB": (1, "surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"),
}


def parse(words: Sequence[str]) -> dict[str, str]:
    """Parses what the command line says of classes.

    Args:
      words: each CLASS=EMOTION, or CLASS=drop to leave the class out.

    Returns:
      {class, as `key` writes it: one of `EMOTIONS` or `DROP`}.

    Raises:
      SourceError: a word is not of that form, names no emotion, or contradicts another.
    """
    result: dict[str, str] = {}
    for word in words:
        name, equals, emotion = (part.strip() for part in word.partition("="))
        if not (name and equals):
            raise SourceError(
                f"--map {word}: expected CLASS=EMOTION or CLASS={DROP}, such as contempt={DROP}"
            )
        try:
            target = DROP if emotion.casefold() == DROP else canonical(emotion)
        except UnknownEmotionError as error:
            raise SourceError(f"--map {word}: {error}; or {DROP}, to leave the class out") from error
        if result.setdefault(key(name), target) != target:
            raise SourceError(f"--map {word}: {name} was mapped to {result[key(name)]} already")
    return result


def key(name: str) -> str:
    """Returns a class's name without case and in one Unicode form (macOS writes another)."""
    return unicodedata.normalize("NFC", name).casefold()


def labels(
    where: Path | str,
    names: set[str],
    class_map: Mapping[str, str],
    numbering: Mapping[str, str],
    *,
    noun: str = "class folder",
) -> dict[str, int | None]:
    """Returns the label of each class, None for those that are left out.

    Args:
      where: the source.
      names: of its classes, in words or numbers.
      class_map: what the user says of them, by `parse`; goes before names and numbers.
      numbering: what the numbers stand for that the user says nothing of; {} if that is not known.
      noun: what messages call a class.

    Raises:
      SourceError: a class is not known, or one that the user names is not there.
    """
    if missing := sorted(class_map.keys() - set(map(key, names))):
        raise SourceError(
            f"{where} has no {noun} {missing[0]}, which --map names; it has: {', '.join(sorted(names))}"
        )
    result: dict[str, int | None] = {}
    for name in sorted(names):
        target = class_map.get(key(name)) or numbering.get(name, name)
        try:
            result[name] = None if target == DROP else emotion_id(target)
        except UnknownEmotionError as error:
            raise SourceError(f"{where}: {error}; {_advice(where, names, name, noun)}") from error
    return result


def notes(class_map: Mapping[str, str], counts: Mapping[str, int]) -> list[str]:
    """Returns what a map did to the images of each class that it names, counted by `key`."""
    found = []
    for name, target in class_map.items():
        done = "left out" if target == DROP else f"taken as {target}"
        found.append(f"{counts[name]:,} images of class {name} {done} (--map {name}={target})")
    return found


def numbered(dataset: str) -> dict[str, str]:
    """Returns what the numbers of a dataset in `NUMBERINGS` stand for."""
    first, *emotions = NUMBERINGS[dataset]
    return {str(number): emotion for number, emotion in enumerate(emotions, first)}


def foreign_numbering(where: Path | str, names: set[str]) -> str | None:
    """Returns the dataset whose numbers these may be, and flags that name its classes; None if unknown."""
    path = _letters(str(Path(where).absolute()))
    for dataset in NUMBERINGS:
        known = numbered(dataset)
        if names == known.keys() or (_letters(dataset) in path and names <= known.keys()):
            flags = " ".join(f"--map {name}={known[name]}" for name in sorted(names))
            return f"{dataset}'s, give {flags}"
    return None


def _advice(where: Path | str, names: set[str], name: str, noun: str) -> str:
    are_folders = noun == "class folder"
    if not name.isdigit():
        return (
            f"say what it is (--map {name}={DROP} leaves it out, --map {name}=disgust takes it as disgust)"
        ) + ", rename the folder or move it out of the source" * are_folders
    if are_folders:
        advice = (
            "numbers are only understood as 0 to 6, all seven, in the order of FER2013; datasets differ in "
            "how they count, so give these folders the names of their emotions, or say them by --map "
            f"{name}=EMOTION"
        )
    else:
        advice = f"datasets differ in how they count: say what each number is, by --map {name}=EMOTION"
    numbering = foreign_numbering(where, names)
    return f"{advice}; if they are {numbering}" if numbering else advice


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).casefold()
