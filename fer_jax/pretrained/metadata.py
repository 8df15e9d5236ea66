"""Validates the metadata in weights files, which may be damaged or untrusted.

Does not import JAX.
"""

import reprlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from fer_jax.data.augment import FILLS, INTERPOLATIONS
from fer_jax.data.emotions import EMOTIONS, class_names
from fer_jax.data.ferplus import GIVEN, RULES
from fer_jax.data.sources.record import SPLITS

_MAX_SIDE = 4096  # pixels
_MAX_COUNT = 2**53  # largest exact integer in JSON
_PREPROCESSING = ("image_size", "channels", "mean", "std", "fill", "interpolation")
_TINY, _LARGE = 1e-6, 1e6  # limits of scales in float32


class _Kind(NamedTuple):
    """What a field may hold, in words and as a check of values; and the fields of each object in it."""

    expected: str
    accepts: Callable[[Any], bool]
    parts: "tuple[_Field, ...]" = ()


_Field = tuple[str, str, _Kind]
# When a field must be there and not null: always, or where the object that it is a part of is there. An
# optional one may be absent, but not null.
ALWAYS, WITHIN, OPTIONAL, NULLABLE = "always", "within", "optional", "nullable"
_ABSENT = object()


def _is_number(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_integer(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and _is_number(value, low, high)


def _levels(low: float, expected: str) -> _Kind:
    """Returns the kind of pixel statistics, shared or per channel."""

    def accepts(value: Any) -> bool:
        values = value if isinstance(value, list) else [value]
        return len(values) in (1, 3) and all(_is_number(one, low, _LARGE) for one in values)

    return _Kind(f"{expected}, or a list of one for each channel", accepts)


def _one_of(*values: Any) -> _Kind:
    kinds = [(type(value), value) for value in values]  # True equals 1
    return _Kind(f"one of {', '.join(map(str, values))}", lambda value: (type(value), value) in kinds)


def _objects(holder: type[list] | type[dict], words: str, *parts: _Field) -> _Kind:
    """Returns the kind of a list of objects, or of an object of objects."""

    def accepts(value: Any) -> bool:
        return isinstance(value, holder) and all(isinstance(one, dict) for _, one in _items(value))

    return _Kind(words, accepts, parts)


def _items(value: Any) -> Iterator[tuple[Any, Any]]:
    return iter(value.items() if isinstance(value, dict) else enumerate(value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


_OBJECT = _Kind("an object", lambda value: isinstance(value, dict))
_TEXT = _Kind("text", _is_text)
_TEXTS = _Kind("a list of texts", lambda value: isinstance(value, list) and all(map(_is_text, value)))
_FLAG = _Kind("true or false", lambda value: isinstance(value, bool))
_FINITE = _Kind("a finite number", lambda value: _is_number(value, -1e300, 1e300))
_POSITIVE = _Kind(f"a number from {_TINY:g} to {_LARGE:g}", lambda value: _is_number(value, _TINY, _LARGE))
_COUNT = _Kind("an integer, 0 or more", lambda value: _is_integer(value, 0, _MAX_COUNT))
_SEED = _Kind("an integer", lambda value: _is_integer(value, -(2**64), 2**64))
_SIDE = _Kind(f"an integer from 1 to {_MAX_SIDE}", lambda value: _is_integer(value, 1, _MAX_SIDE))
_SPLIT = _one_of(*SPLITS)
_CHANNELS = _one_of(1, 3)
_PREPROCESS = _Kind(
    f"an object of {', '.join(_PREPROCESSING)} alone",
    lambda value: isinstance(value, dict) and value.keys() <= set(_PREPROCESSING),
)
_CLASSES = _Kind(
    f"{list(EMOTIONS)}, in this order, and contempt if there is an eighth class",
    lambda value: value in [list(class_names(count)) for count in (7, 8)],
)


def _data(prefix: str, need: str) -> tuple[_Field, ...]:
    """Returns the fields of a dataset, see `read.describe`."""
    words = "an object with an object for each split"
    split = _objects(dict, words, ("hash", NULLABLE, _TEXT), ("count", NULLABLE, _COUNT))
    return (
        (prefix, need, _OBJECT),
        (f"{prefix}.name", WITHIN, _TEXT),
        (f"{prefix}.source_kind", NULLABLE, _TEXT),
        (f"{prefix}.splits", OPTIONAL, split),
    )


def _score(prefix: str) -> tuple[_Field, ...]:
    """Returns the fields of the result of an evaluation."""
    return (
        (prefix, NULLABLE, _OBJECT),
        (f"{prefix}.split", WITHIN, _SPLIT),
        (f"{prefix}.metric", WITHIN, _TEXT),
        (f"{prefix}.value", WITHIN, _FINITE),
        (f"{prefix}.step", NULLABLE, _COUNT),
        (f"{prefix}.epoch", NULLABLE, _FINITE),
    )


_ANCESTOR = (*_data("data", NULLABLE), *_score("selection"), ("steered_by", NULLABLE, _SPLIT))
_NETWORK = (
    ("model.name", ALWAYS, _TEXT),
    ("model.kwargs", ALWAYS, _OBJECT),
    ("preprocess", OPTIONAL, _PREPROCESS),
    ("preprocess.image_size", ALWAYS, _SIDE),
    ("preprocess.channels", ALWAYS, _CHANNELS),
    ("preprocess.mean", ALWAYS, _levels(-_LARGE, "a finite number")),
    ("preprocess.std", ALWAYS, _levels(_TINY, "a number above 0")),
    ("preprocess.fill", ALWAYS, _one_of(*FILLS)),
    ("preprocess.interpolation", ALWAYS, _one_of(*INTERPOLATIONS)),
    ("emotions", ALWAYS, _CLASSES),
    *_data("data", ALWAYS),
    ("data_hash", ALWAYS, _TEXT),
    ("calibration", NULLABLE, _OBJECT),
    ("calibration.temperature", WITHIN, _POSITIVE),
    ("calibration.split", WITHIN, _SPLIT),
    ("calibration.split_hash", NULLABLE, _TEXT),
    ("faces", NULLABLE, _OBJECT),
    ("faces.side", NULLABLE, _SIDE),
    ("faces.channels", NULLABLE, _CHANNELS),
    ("loaded_size", NULLABLE, _SIDE),
    ("labels", OPTIONAL, _one_of(GIVEN, *RULES)),
    ("annotations", OPTIONAL, _TEXTS),
    *_score("evaluation"),
    *_score("selection"),
    ("steered_by", NULLABLE, _SPLIT),
    ("ancestors", OPTIONAL, _objects(list, "a list of objects", *_ANCESTOR)),
    ("pretrained", NULLABLE, _OBJECT),
    ("pretrained.file", WITHIN, _TEXT),
    ("pretrained.licence", WITHIN, _TEXT),
    ("pretrained.ecosystem", NULLABLE, _TEXT),
    ("config", NULLABLE, _OBJECT),
    ("config.checkpoint", NULLABLE, _OBJECT),
    ("config.checkpoint.dtype", NULLABLE, _one_of("float32", "float16")),
    ("parameters", NULLABLE, _COUNT),
    ("seed", NULLABLE, _SEED),
    ("ema", NULLABLE, _FLAG),
    ("version", NULLABLE, _TEXT),
)
_PORTED = (
    ("model", ALWAYS, _TEXT),
    ("file", ALWAYS, _TEXT),
    ("licence", ALWAYS, _TEXT),
    ("missing", ALWAYS, _TEXTS),
    ("conventions", ALWAYS, _OBJECT),
    ("conventions.padding", NULLABLE, _one_of("symmetric", "same")),
    ("conventions.epsilon", NULLABLE, _POSITIVE),
    ("preprocess.mean", ALWAYS, _levels(-_LARGE, "a finite number")),
    ("preprocess.std", ALWAYS, _levels(_TINY, "a number above 0")),
    ("preprocess.interpolation", ALWAYS, _one_of(*INTERPOLATIONS)),
)


def check_network(metadata: dict[str, Any], source: str) -> None:
    """Validates the metadata of a network, see `weights_file.load_weights`.

    Raises:
      ValueError: the metadata is invalid; the message names the source and the field.
    """
    _check(metadata, _NETWORK, source, "training wrote, such as RUN/best.safetensors")


def check_ported(metadata: dict[str, Any], source: str) -> None:
    """Validates the metadata of converted ImageNet weights, as `check_network`."""
    _check(metadata, _PORTED, source, "port-weights wrote")


def _check(metadata: dict[str, Any], fields: tuple[_Field, ...], source: str, which: str) -> None:
    problems = list(_problems(metadata, fields))
    if missing := [name for name, value, _ in problems if value is _ABSENT]:
        raise ValueError(
            f"the metadata in {source} lacks {', '.join(missing)}: use weights that fer_jax's {which}"
        )
    channels = metadata["preprocess"].get("channels", 3)
    for name in ("mean", "std"):
        found = metadata["preprocess"][name]
        if not problems and isinstance(found, list) and len(found) != channels:
            problems = [(f"preprocess.{name}", found, f"a number, or {channels}, one for each channel")]
    if problems:
        wrong = [f"{name} is {reprlib.repr(found)}; expected {words}" for name, found, words in problems]
        raise ValueError(f"the metadata in {source} cannot be used: {'; '.join(wrong[:3])}")


def _problems(tree: dict[str, Any], fields: tuple[_Field, ...]) -> Iterator[tuple[str, Any, str]]:
    """Yields the name, the value (or _ABSENT), and the expected value of each invalid field."""
    for name, need, kind in fields:
        value = _find(tree, name)
        if value is None and need in (ALWAYS, WITHIN):
            value = _ABSENT
        if value is _ABSENT:
            outer = _find(tree, name.rpartition(".")[0])
            if need is ALWAYS or (need is WITHIN and isinstance(outer, dict)):
                yield name, _ABSENT, kind.expected
        elif value is None and need is NULLABLE:
            continue
        elif not kind.accepts(value):
            yield name, value, kind.expected
        elif kind.parts:
            for key, one in _items(value):
                for part, found, expected in _problems(one, kind.parts):
                    yield f"{name}.{key}.{part}", found, expected


def _find(tree: Any, name: str) -> Any:
    """Returns the value at a dotted name in nested dictionaries, or _ABSENT."""
    for key in name.split("."):
        tree = tree.get(key, _ABSENT) if isinstance(tree, dict) else _ABSENT
    return tree
