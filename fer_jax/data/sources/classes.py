"""Maps the classes of a source to labels: by name, by --map, or by a dataset's numbering."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from fer_jax.data.emotions import EMOTIONS, UnknownEmotionError, canonical, emotion_id
from fer_jax.data.sources.record import SourceError

DROP = "drop"  # instead of an emotion, for classes to leave out
FER2013 = {str(number): emotion for number, emotion in enumerate(EMOTIONS)}

# Class numbers of datasets that differ from FER2013's.
NUMBERINGS = {
    "AffectNet": (0, "neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", DROP),
    "RAF-DB": (1, "surprise", "fear", "disgust", "happy", "sad", "angry", "neutral"),
}


def parse(words: Sequence[str]) -> dict[str, str]:
    """Parses the values of --map: CLASS=EMOTION, or CLASS=drop to leave a class out.

    Returns:
      {class, as `key` writes it: one of `EMOTIONS` or `DROP`}.

    Raises:
      SourceError: a value is malformed, has an unknown emotion, or contradicts another.
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
            raise SourceError(f"--map {word}: {name} is already mapped to {result[key(name)]}")
    return result


def key(name: str) -> str:
    """Returns a class name in a canonical form: casefolded and Unicode-normalized."""
    return unicodedata.normalize("NFC", name).casefold()


def labels(
    where: Path | str,
    names: set[str],
    class_map: Mapping[str, str],
    numbering: Mapping[str, str],
    *,
    noun: str = "class folder",
) -> dict[str, int | None]:
    """Returns the label of each class, None for classes to leave out.

    Args:
      where: the source.
      names: class names or numbers.
      class_map: from `parse`; takes precedence over names and numbers.
      numbering: emotions by number; {} if unknown.
      noun: word for a class in messages.

    Raises:
      SourceError: a class is unknown, or a class in `class_map` does not exist.
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
    """Describes the effect of --map on each class, with image counts by `key`."""
    found = []
    for name, target in class_map.items():
        done = "left out" if target == DROP else f"taken as {target}"
        found.append(f"{counts[name]:,} images of class {name} {done} (--map {name}={target})")
    return found


def numbered(dataset: str) -> dict[str, str]:
    """Returns the emotions by number of a dataset in `NUMBERINGS`."""
    first, *emotions = NUMBERINGS[dataset]
    return {str(number): emotion for number, emotion in enumerate(emotions, first)}


def foreign_numbering(where: Path | str, names: set[str]) -> str | None:
    """Guesses the dataset of numbered classes; returns its name and --map flags, None if unknown."""
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
            f"map it (--map {name}={DROP} leaves it out, --map {name}=disgust labels it disgust)"
        ) + ", rename the folder or move it out of the source" * are_folders
    if are_folders:
        advice = (
            "only the numbers 0 to 6, all seven, are accepted, in the order of FER2013; other datasets "
            "number their classes differently, so rename the folders after their emotions, or map them with "
            f"--map {name}=EMOTION"
        )
    else:
        advice = f"datasets number their classes differently: map each number with --map {name}=EMOTION"
    numbering = foreign_numbering(where, names)
    return f"{advice}; if these are {numbering}" if numbering else advice


def _letters(text: str) -> str:
    return re.sub(r"[\W_]", "", text).casefold()
