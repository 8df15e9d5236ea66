"""ImageNet weights for a model: download, conversion, and a run's initial variables."""

import dataclasses
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

import fer_jax
from fer_jax import models
from fer_jax.pretrained import download, formats, porting, sources
from fer_jax.pretrained.key_map import ECOSYSTEMS
from fer_jax.pretrained.metadata import check_ported
from fer_jax.pretrained.weights_file import load_weights

CLASSES = 1000
# Parts of the ImageNet classifier, which a run replaces.
_HEADS: dict[str, tuple[str, ...]] = dict.fromkeys(("vgg16", "vgg16_bn"), ("hidden_0", "hidden_1", "head"))
_STEMS = ("stem", "conv_0")
# Attributes of a model that change its output, but not its arrays.
CONVENTIONS = ("padding", "epsilon")


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Converted weights."""

    variables: dict[str, Any]  # {"params", "batch_stats"}, float32, with a stem that takes RGB
    # JSON: "model", "ecosystem", "url", "file", "sha256", "licence", "top1" (percent, or None), "resolution",
    # "left_out" (our parts), "missing" (our arrays that the file lacks), "conventions" (the `CONVENTIONS` of
    # their training), and "preprocess" (mean and std of RGB in [0, 1], interpolation).
    metadata: dict[str, Any]


def convert(
    model: str,
    ecosystem: str,
    file: pathlib.Path | None = None,
    *,
    with_head: bool = False,
    absent: Sequence[str] = (),
) -> Pretrained:
    """Converts official weights of a model.

    Args:
      model: a name in `models.MODELS`.
      ecosystem: one of `key_map.ECOSYSTEMS`.
      file: the checkpoint; None for the official one, from the cache or the network.
      with_head: whether to include the classifier of the 1000 classes.
      absent: names of arrays that the file lacks.

    Raises:
      ValueError: there are no such weights, or the file has others (`porting.WeightsMismatchError`,
        `formats.UnreadableWeightsError`).
      FileNotFoundError: `file` does not exist.
      download.DownloadError: the official file is neither cached nor available for download.
      download.WrongFileError: the cached or downloaded file is another one.
    """
    source = sources.find(model, ecosystem)
    left_out = () if with_head else _HEADS.get(model, ("head",))
    kwargs: dict[str, Any] = {"dense": True} if "hidden_0" in _HEADS.get(model, ()) else {}
    network = models.create(model, CLASSES, **kwargs)
    shapes = models.variable_shapes(network, (224, 224, 3))
    path = file or download.fetch(
        source.url,
        checksum=source.checksum,
        folder=f"{ecosystem}/{model}",
        megabytes=sum(leaf.size for leaf in jax.tree.leaves(shapes)) * 4 / 1e6,  # float32
    )
    variables = porting.port(
        model, ecosystem, formats.read(path), shapes, leave_out=left_out, absent=absent, bgr=source.bgr
    )
    metadata = {
        "version": fer_jax.__version__,
        "model": model,
        "ecosystem": ecosystem,
        "url": source.url,
        "file": path.name,
        "sha256": download.digest(path),
        "licence": source.licence,
        "top1": source.top1,
        "resolution": source.resolution,
        "left_out": list(left_out),
        "missing": sorted(n for n in _names(shapes) - _names(variables) if n.split("/")[1] not in left_out),
        "conventions": {name: getattr(source, name) for name in CONVENTIONS},
        "preprocess": {
            "mean": list(source.mean),
            "std": list(source.std),
            "interpolation": source.interpolation,
        },
    }
    return Pretrained(variables, metadata)


def _names(variables: dict[str, Any]) -> set[str]:
    return set(traverse_util.flatten_dict(variables, sep="/"))


def find(weights: str, model: str) -> Pretrained:
    """Loads the weights in `config.init.weights`: an ecosystem, or a file from fer-jax port-weights.

    Raises:
      As `convert`; ValueError: the weights are for another model.
    """
    if weights in ECOSYSTEMS:
        return convert(model, weights)
    if not pathlib.Path(weights).is_file():
        raise FileNotFoundError(
            f"config.init.weights is {weights!r}: expected none, {', '.join(ECOSYSTEMS)}, or a file from "
            "fer-jax port-weights"
        )
    variables, metadata = load_weights(weights)
    if (given := metadata.get("model")) != model:
        raise ValueError(f"{weights} has weights of {given}, but config.model.name is {model}")
    check_ported(metadata, weights)
    return Pretrained(variables, metadata)


def gray(preprocess: dict[str, Any]) -> tuple[float, float]:
    """Returns the mean and std for one-channel faces, averaged over the colors of `preprocess`."""
    return float(np.mean(preprocess["mean"])), float(np.mean(preprocess["std"]))


def initialize(variables: dict[str, Any], pretrained: Pretrained) -> dict[str, Any]:
    """Replaces the variables of a run by pretrained ones.

    The head, and arrays that the file lacks according to its metadata, remain random. Parts that a truncated
    model lacks are dropped. A one-channel model, with faces normalized by `gray`, gives the output of the
    original with repeated channels: a stem with one input channel gets the sum over colors, each with its
    normalization (only the padding differs), and an adapter repeats the face.

    Raises:
      ValueError: any other array is missing or has another shape.
    """
    ours: dict[Any, Any] = traverse_util.flatten_dict(variables)
    theirs: dict[Any, Any] = traverse_util.flatten_dict(pretrained.variables)
    preprocess, parts = pretrained.metadata["preprocess"], {path[1] for path in ours}
    for stem in _STEMS:
        kernel = ("params", stem, "kernel")
        if kernel in ours and kernel in theirs and ours[kernel].shape[2] == 1:
            theirs |= _grey_stem(theirs, stem, preprocess)
    if "adapter" in parts:
        theirs |= _repeating_adapter(ours["params", "adapter", "kernel"].shape, preprocess)
    fresh, wrong = [], []
    for path, value in ours.items():
        name = "/".join(path)
        if path[1] == "head" or name in pretrained.metadata["missing"]:
            fresh.append(name)
            continue
        if path not in theirs:
            wrong.append(f"{name} missing")
            continue
        new = theirs[path]
        if new.shape != value.shape:
            wrong.append(f"{name} {new.shape} for {value.shape}")
        ours[path] = new
    wrong += [f"{'/'.join(path)} unexpected" for path in theirs if path not in ours and path[1] in parts]
    if wrong:
        raise ValueError(
            f"the weights of {pretrained.metadata['file']} do not fit the model: {', '.join(wrong[:5])}"
        )
    unused = sorted({path[1] for path in theirs} - parts)
    logging.info("from %s; new: %s; not used: %s", pretrained.metadata["file"], fresh, unused)
    return {"batch_stats": {}, **traverse_util.unflatten_dict(ours)}


def _grey_stem(theirs: dict[Any, np.ndarray], stem: str, preprocess: dict[str, Any]) -> dict[Any, np.ndarray]:
    """Returns the arrays of a stem for x = (gray - gray_mean) / gray_std that differ from the RGB one's.

    For each color c, (gray - mean_c) / std_c = (x gray_std + gray_mean - mean_c) / std_c: the first term
    gives the kernel, the others a constant, which is added to the bias or, without one, subtracted from the
    mean of the BatchNorm that follows.
    """
    mean, std = (np.reshape(preprocess[name], (3, 1)) for name in ("mean", "std"))
    gray_mean, gray_std = gray(preprocess)
    kernel = theirs["params", stem, "kernel"] / std
    constant = (kernel * (gray_mean - mean)).sum((0, 1, 2))
    found = {("params", stem, "kernel"): kernel.sum(2, keepdims=True) * gray_std}
    bias, running = ("params", stem, "bias"), ("batch_stats", f"{stem}_norm", "mean")
    if bias in theirs:
        found[bias] = theirs[bias] + constant
    elif running in theirs:
        found[running] = theirs[running] - constant
    return {path: value.astype(np.float32) for path, value in found.items()}


def _repeating_adapter(shape: tuple[int, ...], preprocess: dict[str, Any]) -> dict[Any, np.ndarray]:
    """Returns an adapter [3, 3, C, 3] that passes on colors, or gray as the weights expect it."""
    kernel, bias = np.zeros(shape, np.float32), np.zeros(3, np.float32)
    if shape[2] == 3:
        kernel[1, 1] = np.eye(3)
    else:
        mean, std = np.asarray(preprocess["mean"]), np.asarray(preprocess["std"])
        gray_mean, gray_std = gray(preprocess)
        kernel[1, 1], bias[:] = gray_std / std, (gray_mean - mean) / std
    return {("params", "adapter", "kernel"): kernel, ("params", "adapter", "bias"): bias}
