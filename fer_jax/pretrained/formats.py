"""Readers of other libraries' checkpoint files; nothing in a file is ever executed."""

import pathlib

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open

FORMATS = (".pth", ".pt", ".safetensors", ".weights.h5", ".h5")


class UnreadableWeightsError(ValueError):
    """A file of weights cannot be read; the message says why."""


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays in a file by name.

    Args:
      path: torch's `.pth` or `.pt` (never unpickled; needs torch), `.safetensors`, Keras' legacy `.h5` or its
        `.weights.h5`.

    Returns:
      Arrays by name. In Keras' legacy files they are in the order of the layers and named by their place,
      `LAYER/WEIGHT` (`block1_conv1/block1_conv1_W_1:0`); in its other files they are named `KIND_N/I`
      (`conv2d_3/0`: the first variable of the fourth such layer).

    Raises:
      FileNotFoundError: the file does not exist.
      UnreadableWeightsError: it is damaged, or of another kind.
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
            with h5py.File(path) as file:
                return _read_keras(file) if "layers" in file else _read_legacy_keras(file)
    except (SafetensorError, OSError, KeyError, RuntimeError) as error:
        raise UnreadableWeightsError(f"{path} is damaged or not what its name says: {error}") from error
    raise UnreadableWeightsError(f"{path}: expected a name that ends in {', '.join(FORMATS)}")


def _read_torch(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError:
        raise UnreadableWeightsError(
            f"{path}: reading torch's files needs torch (pip install torch); a .safetensors file of the same "
            "weights does not"
        ) from None
    import pickle

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UnreadableWeightsError(f"{path} holds more than weights and is not opened: {reason}") from error
    entries = state.items() if isinstance(state, dict) else [("the whole file", state)]
    for key, value in entries:
        if not isinstance(value, torch.Tensor):
            raise UnreadableWeightsError(
                f"{path}: {key} is of type {type(value).__name__}, not a tensor: save the state dict alone, "
                "torch.save(model.state_dict(), PATH)"
            )
    return {key: value.detach().numpy() for key, value in entries}


def _read_legacy_keras(file: h5py.File) -> dict[str, np.ndarray]:
    """Keeps the order of layers and weights, by which Keras loads: names change between its versions."""
    file = file["model_weights"] if "model_weights" in file else file
    arrays = {}
    for layer in file.attrs["layer_names"]:
        layer = layer.decode() if isinstance(layer, bytes) else layer
        for weight in file[layer].attrs["weight_names"]:
            weight = weight.decode() if isinstance(weight, bytes) else weight
            arrays[f"{layer}/{weight}"] = np.asarray(file[layer][weight])
    return arrays


def _read_keras(file: h5py.File) -> dict[str, np.ndarray]:
    return {
        f"{layer}/{index}": np.asarray(variable)
        for layer, group in file["layers"].items()
        for index, variable in group.get("vars", {}).items()
    }
