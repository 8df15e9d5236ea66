"""Reads checkpoint files of other libraries.

Never executes code in a file or opens other files, and limits memory to a few times the size of the file.
"""

import math
import pathlib
from collections.abc import Iterator
from typing import Any, NoReturn

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open

FORMATS = (".pth", ".pt", ".safetensors", ".weights.h5", ".h5")
_EXPANSION = 10  # maximum ratio for compressed weights; trained weights hardly compress
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32, h5py.h5z.FILTER_LZF}

_DAMAGE = SafetensorError, OSError, LookupError, RuntimeError, TypeError, ValueError, AttributeError


class UnreadableWeightsError(ValueError):
    """A weights file that cannot be read; the message says why."""


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays in a file by name.

    Reads torch's `.pth` or `.pt` (never unpickled; needs torch), `.safetensors`, and Keras' legacy `.h5` or
    `.weights.h5`.

    Returns:
      Arrays by name. For Keras' legacy files, names are `LAYER/WEIGHT` (`block1_conv1/block1_conv1_W_1:0`),
      in the order of layers; for its other files, `KIND_N/I` (`conv2d_3/0`: the first variable of the fourth
      such layer).

    Raises:
      FileNotFoundError: the file does not exist.
      UnreadableWeightsError: the file is damaged or has another format, refers to other files, or declares
        arrays of more than ten times its size.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    name = path.name
    try:
        if name.endswith((".pth", ".pt")):
            return _read_torch(path)
        if name.endswith(".safetensors"):
            with safe_open(path, "numpy") as file:
                return {key: file.get_tensor(key) for key in file.keys()}
        if name.endswith(".h5"):
            return _Keras(path).read()
    except UnreadableWeightsError:
        raise
    except _DAMAGE as error:
        raise UnreadableWeightsError(
            f"{path} is damaged, or has another format than its name says: {error}"
        ) from error
    raise UnreadableWeightsError(f"{path}: expected a file ending in {', '.join(FORMATS)}")


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise UnreadableWeightsError(
            f"{path}: reading this file needs torch (pip install torch); a .safetensors file of the same "
            "weights does not"
        ) from None
    import pickle

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UnreadableWeightsError(
            f"{path} contains more than weights, and is not opened: {reason}"
        ) from error
    entries = state.items() if isinstance(state, dict) else [("the whole file", state)]
    for key, value in entries:
        if not isinstance(value, torch.Tensor):
            raise UnreadableWeightsError(
                f"{path}: {key} is of type {type(value).__name__}, not a tensor: save the state dict alone, "
                "torch.save(model.state_dict(), PATH)"
            )
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise UnreadableWeightsError(
                f"{path}: {key} has shape {tuple(value.shape)}, more than is stored: save .contiguous()"
            )
    return {key: value.detach().numpy() for key, value in entries}


class _Keras:
    """Reads a Keras file; validates everything before following, allocating, or reading it."""

    def __init__(self, path: pathlib.Path):
        self._path, self._left = path, _EXPANSION * path.stat().st_size  # remaining bytes for arrays

    def read(self) -> dict[str, np.ndarray]:
        with h5py.File(self._path) as file:
            return dict(self._layers(file) if "layers" in file else self._legacy_layers(file))

    def _legacy_layers(self, file: h5py.File) -> Iterator[tuple[str, np.ndarray]]:
        """Yields arrays in the order of layers and weights, by which Keras loads them."""
        top = self._open(file, "model_weights") if "model_weights" in file else file
        for layer in self._names(top, "layer_names"):
            group = self._open(top, layer)
            for weight in self._names(group, "weight_names"):
                yield f"{layer}/{weight}", self._array(group, weight)

    def _layers(self, file: h5py.File) -> Iterator[tuple[str, np.ndarray]]:
        layers = self._open(file, "layers")
        for layer in layers:
            group = self._open(layers, layer)
            variables = self._open(group, "vars") if "vars" in group else ()
            for index in variables:
                yield f"{layer}/{index}", self._array(variables, index)

    def _open(self, group: Any, name: str) -> Any:
        """Returns the object at a path in a group, without following links."""
        for part in filter(None, name.split("/")):
            kind = group.get(part, getclass=True, getlink=True)
            if kind is not h5py.HardLink:
                words = "missing" if kind is None else f"a link ({kind.__name__}), which is not followed"
                self._refuse(f"{group.name}/{part}", f"is {words}")
            group = group[part]
        return group

    def _names(self, group: Any, attribute: str) -> list[str]:
        stored = group.attrs.get_id(attribute)
        self._reserve(f"{group.name} {attribute}", math.prod(stored.shape) * stored.dtype.itemsize)
        return [name.decode() if isinstance(name, bytes) else name for name in group.attrs[attribute]]

    def _array(self, group: Any, name: str) -> np.ndarray:
        found = self._open(group, name)
        where = f"{group.name}/{name}"
        if not isinstance(found, h5py.Dataset) or found.shape is None or found.dtype.kind not in "fiu":
            self._refuse(where, "is not a numeric array")
        if found.external or found.is_virtual:
            self._refuse(where, "is stored in other files, which are not opened")
        steps = found.id.get_create_plist()
        filters = {steps.get_filter(i)[0] for i in range(steps.get_nfilters())}
        if filters - _FILTERS:
            self._refuse(where, f"is compressed by filters other than gzip and LZF ({filters - _FILTERS})")
        self._reserve(where, found.size * found.dtype.itemsize)
        chunk = math.prod(found.chunks or ()) * found.dtype.itemsize  # allocated by HDF5 when reading
        if chunk > _EXPANSION * self._path.stat().st_size:
            self._refuse(where, f"has chunks of {chunk:,} bytes, more than the file can contain")
        return np.asarray(found)

    def _reserve(self, where: str, size: int) -> None:
        self._left -= size
        if self._left < 0:
            self._refuse(where, f"declares {size:,} bytes, more than the file can contain")

    def _refuse(self, where: str, reason: str) -> NoReturn:
        raise UnreadableWeightsError(
            f"{self._path}: {where} {reason}; expected the weights of a network: save it again with "
            "model.save_weights(PATH)"
        )
