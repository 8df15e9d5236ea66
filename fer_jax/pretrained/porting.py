"""Converts checkpoints of other libraries, using every array exactly once or reporting mismatches."""

import collections
import difflib
import itertools
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from fer_jax.pretrained.key_map import Slot, slots

# Names of the variables of a layer in other libraries, in the order of Keras.
_TORCH = {"kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_KERAS_NORM = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}
_KERAS_KINDS = {
    "conv": "conv2d",
    "depthwise": "depthwise_conv2d",
    "norm": "batch_normalization",
    "dense": "dense",
}


class WeightsMismatchError(ValueError):
    """A checkpoint that does not fit a model; the message lists the arrays."""


def port(
    model: str,
    ecosystem: str,
    arrays: dict[str, np.ndarray],
    shapes: dict[str, Any],
    *,
    leave_out: Sequence[str] = (),
    absent: Sequence[str] = (),
    bgr: bool = False,
) -> dict[str, Any]:
    """Converts the arrays of a checkpoint to the variables of a model.

    Args:
      model: a name in `models.MODELS`.
      ecosystem: one of `key_map.ECOSYSTEMS`.
      arrays: as `formats.read` returns them.
      shapes: our variables or their shapes, {"params", "batch_stats"}.
      leave_out: our parts (names at the root of the tree, such as 'head') to leave out.
      absent: names of arrays that the file lacks, whose variables are left out. For Keras' legacy files these
        are the current names, `LAYER/VARIABLE` (`stem_conv/kernel`).
      bgr: whether the first layer in the file takes BGR.

    Returns:
      {"params", "batch_stats"} with float32 arrays, without parts left out; the stem takes RGB.

    Raises:
      WeightsMismatchError: arrays are missing, unexpected, or of another shape, or `absent` is wrong.
      ValueError: `ecosystem` has no checkpoint of `model`.
    """
    layers = slots(model, ecosystem, shapes["params"])
    names = _names(layers, ecosystem, arrays)
    variables = {slot: list(_variables(slot, shapes)) for slot in layers}
    known = {names[slot][variable] for slot in layers for _, variable, _ in variables[slot]}
    if unknown := sorted(set(absent) - known):
        raise WeightsMismatchError(
            f"arrays declared absent that {model} does not have in {ecosystem}: {', '.join(unknown)}"
        )
    arrays = {key: value for key, value in arrays.items() if not _is_ignored(key)}
    in_order = ecosystem == "keras" and not _is_numbered(arrays)
    keys = _keys_in_order(variables, names, arrays, absent) if in_order else {key: key for key in arrays}
    if present := sorted(keys.keys() & set(absent)):
        raise WeightsMismatchError(f"the weights have arrays declared absent: {', '.join(present)}")
    ours, missing, misshapen, unused = {}, [], [], set(arrays)
    for slot in layers:
        for collection, variable, target in variables[slot]:
            name = names[slot][variable]
            key = keys.get(name)
            if slot.path[0] in leave_out:
                unused.discard(key)
                continue
            if key is None:
                if name not in absent:
                    missing.append(name)
                continue
            unused.discard(key)
            value = converted(np.asarray(arrays[key], np.float32), slot, ecosystem, target.shape)
            if value.shape != target.shape:
                misshapen.append(f"{key} {arrays[key].shape} for {'/'.join(slot.path)} {target.shape}")
            elif bgr and slot is layers[0] and variable == "kernel":
                value = value[:, :, ::-1]
            ours[(collection, *slot.path, variable)] = value
    problems = {"missing": missing, "unexpected": sorted(unused), "wrong shape": misshapen}
    if any(problems.values()):
        report = "; ".join(f"{kind}: {', '.join(keys)}" for kind, keys in problems.items() if keys)
        raise WeightsMismatchError(f"the weights do not fit {model} from {ecosystem}. {report}")
    return {"batch_stats": {}, **traverse_util.unflatten_dict(ours)}


def _is_ignored(key: str) -> bool:
    """Returns whether an array is a counter of torch, or Keras' mean or variance of the input."""
    return key.endswith("num_batches_tracked") or bool(re.match(r"normalization(_\d+)?/", key))


def _variables(slot: Slot, shapes: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yields (collection, name, shape) of the variables of a layer."""
    for collection in ("params", "batch_stats"):
        layer = shapes.get(collection, {})
        for part in slot.path:
            layer = layer.get(part, {})
        for variable in ("kernel", "scale", "bias", "mean", "var"):
            if variable in layer:
                yield collection, variable, layer[variable]


def _names(
    layers: Sequence[Slot], ecosystem: str, arrays: dict[str, np.ndarray]
) -> dict[Slot, dict[str, str]]:
    """Returns the names of each layer's variables in the file; for Keras' legacy files the current names."""
    if ecosystem != "keras":
        return {slot: {ours: f"{slot.name}.{theirs}" for ours, theirs in _TORCH.items()} for slot in layers}
    everything = ("kernel", "scale", "bias", "mean", "var")
    if not _is_numbered(arrays):
        theirs = {slot: _KERAS_NORM if slot.kind == "norm" else {} for slot in layers}
        return {slot: {v: f"{slot.name}/{theirs[slot].get(v, v)}" for v in everything} for slot in layers}
    counts, names = collections.Counter(), {}
    for slot in layers:
        # Keras implements these dense layers as 1x1 convolutions.
        kind = "conv2d" if _is_convolution_in_keras(slot, arrays) else _KERAS_KINDS[slot.kind]
        layer = f"{kind}_{counts[kind]}" if counts[kind] else kind
        counts[kind] += 1
        order = ("scale", "bias", "mean", "var") if slot.kind == "norm" else ("kernel", "bias")
        names[slot] = {v: f"{layer}/{order.index(v) if v in order else v}" for v in everything}
    return names


def _is_numbered(arrays: dict[str, np.ndarray]) -> bool:
    """Returns whether the names are from a `.weights.h5`."""
    return all(key.rsplit("/", 1)[-1].isdigit() for key in arrays)


def _keys_in_order(
    variables: dict[Slot, list[tuple[str, str, Any]]],
    names: dict[Slot, dict[str, str]],
    arrays: dict[str, np.ndarray],
    absent: Collection[str],
) -> dict[str, str]:
    """Returns the keys of a legacy Keras file by current name.

    Matches layers by order, as Keras does, because names changed between versions. Layers of other shapes
    count as missing or unexpected, so that the report does not list all later layers.
    """
    expected = []
    for slot, found in variables.items():
        kept = {names[slot][v]: _shape_in_keras(target.shape, slot) for _, v, target in found}
        expected.append({name: shape for name, shape in kept.items() if name not in absent})
    expected = [layer for layer in expected if layer]
    grouped = itertools.groupby(arrays, lambda key: key.rsplit("/", 1)[0])
    given = [{key: _without_ones(arrays[key].shape) for key in group} for _, group in grouped]
    shapes = [[tuple(layer.values()) for layer in layers] for layers in (expected, given)]
    keys: dict[str, str] = {}
    for _, i, i_end, j, j_end in difflib.SequenceMatcher(None, *shapes, autojunk=False).get_opcodes():
        for ours, theirs in zip(expected[i:i_end], given[j:j_end], strict=False):
            keys |= zip(ours, theirs, strict=False)
    return keys


def _shape_in_keras(shape: tuple[int, ...], slot: Slot) -> tuple[int, ...]:
    depthwise = slot.kind == "depthwise"
    return _without_ones((*shape[:2], shape[3], shape[2]) if depthwise else shape)


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drops axes of size 1, so that 1x1 convolutions equal dense layers, which Keras interchanges."""
    return shape[2:] if len(shape) == 4 and shape[:2] == (1, 1) else shape


def _is_convolution_in_keras(slot: Slot, arrays: dict[str, np.ndarray]) -> bool:
    if slot.kind != "dense":
        return False
    return "squeeze" in slot.path or not any(key.startswith("dense") for key in arrays)


def converted(value: np.ndarray, slot: Slot, ecosystem: str, shape: tuple[int, ...]) -> np.ndarray:
    """Converts an array to our layout; its shape differs from `shape` if it does not fit."""
    if value.ndim not in (2, 4):
        return value
    if ecosystem == "keras":
        value = value.swapaxes(2, 3) if slot.kind == "depthwise" and value.ndim == 4 else value
    elif slot.path == ("hidden_0",) and value.ndim == 2 and value.shape[1] == 25088:
        value = value.reshape(-1, 512, 7, 7).transpose(2, 3, 1, 0)  # torch flattens channels first
    else:
        value = value.T if value.ndim == 2 else value.transpose(2, 3, 1, 0)
    if slot.kind == "dense" and value.size == np.prod(shape):
        return value.reshape(shape)
    return value
