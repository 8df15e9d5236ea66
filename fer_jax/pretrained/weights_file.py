"""A network's weights with their metadata, in safetensors files and in a run's checkpoints.

Imports JAX only where it is needed: that takes longer than to load weights.
"""

import errno
import functools
import hashlib
import json
import logging
import os
import pathlib
import zlib
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fer_jax.errors import ExplainedError
from fer_jax.io_utils import write_atomically

WEIGHTS_SUFFIX = ".safetensors"
BEST_WEIGHTS = f"best{WEIGHTS_SUFFIX}"
CHECKPOINTS = "checkpoints"
CHECKSUMS, EXTRA = "checksums", "extra"  # keys in a checkpoint's JSON
_METADATA, _NOTES, _DIGEST = "facts", "__metadata__", "digest"  # keys in the header of a safetensors file
_REFUSALS = {
    getattr(errno, name) for name in "EACCES EAGAIN EIO EMFILE ENFILE ENOMEM EPERM ESTALE ETIMEDOUT".split()
}


class DamagedCheckpointError(ExplainedError):
    """A checkpoint cannot be read or is not what was written."""


def export_weights(
    path: os.PathLike | str, variables: dict[str, Any], metadata: dict[str, Any], dtype: str = "float32"
) -> None:
    """Writes {"params", "batch_stats"} and their metadata to one safetensors file, atomically.

    The file includes a digest of both, which `load_weights` checks.

    Args:
      path: the file.
      variables: trees of arrays.
      metadata: JSON: model, preprocess, emotions, config, data_hash, selection, and so on.
      dtype: type of the stored kernels (parameters of two or more dimensions); the rest stays float32.
    """
    tensors = {}
    for name, value in flatten(variables).items():
        value = np.asarray(value, np.float32)
        tensors[name] = np.ascontiguousarray(value.astype(dtype) if value.ndim > 1 else value)
    content = with_notes(save(tensors), {_METADATA: json.dumps(metadata, sort_keys=True)})
    write_atomically(pathlib.Path(path), content)


def with_notes(content: bytes, notes: dict[str, str]) -> bytes:
    """Returns a safetensors file with notes added to its header, and a digest of all that is in it."""
    header, data = _split(content)
    header[_NOTES] = dict(sorted((header.get(_NOTES, {}) | notes).items()))
    header[_NOTES][_DIGEST] = _digest(header, data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the data, as safetensors does
    return len(text).to_bytes(8, "little") + text + data


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Returns the header of a safetensors file and what follows it."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def _digest(header: dict[str, Any], data: bytes) -> str:
    """Returns 'sha256:' and the digits for a safetensors file, its own digest left out."""
    notes = {name: text for name, text in header[_NOTES].items() if name != _DIGEST}
    found = hashlib.sha256(json.dumps(header | {_NOTES: notes}, sort_keys=True).encode())
    found.update(data)
    return f"sha256:{found.hexdigest()}"


def load_weights(path: os.PathLike | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loads weights to evaluate with, and their metadata.

    A safetensors file without a digest, such as an older one, is loaded with a note in the log.

    Args:
      path: a safetensors file that `export_weights` wrote, one step's directory of a run's checkpoints, or
        a run's work directory (its best weights).

    Returns:
      {"params", "batch_stats"} with float32 NumPy leaves (the averaged weights if the run kept any), and the
      metadata.

    Raises:
      FileNotFoundError: there are no weights at `path`.
      DamagedCheckpointError: it cannot be read, or holds other values than were saved.
    """
    path = pathlib.Path(path)
    if (path / BEST_WEIGHTS).is_file():
        path = path / BEST_WEIGHTS
    if path.is_file():
        return _load_safetensors(path)
    if (path / "state").is_dir():
        return _load_orbax(path.absolute())
    raise FileNotFoundError(
        f"no weights at {path}: expected a {WEIGHTS_SUFFIX} file, a checkpoint "
        f"(RUN/{CHECKPOINTS}/STEP) or a work directory with {BEST_WEIGHTS}"
    )


def flatten(tree: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the leaves of nested dictionaries by their paths, joined by slashes as in a file."""
    found = {}
    for key, value in tree.items():
        inner = flatten(value) if isinstance(value, dict) else None
        found |= {key: value} if inner is None else {f"{key}/{path}": leaf for path, leaf in inner.items()}
    return found


def _load_safetensors(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    content = path.read_bytes()
    try:
        tensors = load(content)
        header, data = _split(content)
        notes = header.get(_NOTES) or {}
        metadata = json.loads(notes.get(_METADATA, "null"))
        variables: dict[str, Any] = {"batch_stats": {}}
        for name, tensor in tensors.items():
            *parents, leaf = name.split("/")
            tree = functools.reduce(lambda tree, key: tree.setdefault(key, {}), parents, variables)
            tree[leaf] = tensor.astype(np.float32)
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedCheckpointError(
            f"{path} is not a complete safetensors file with metadata of fer_jax: {error}"
        ) from error
    if not isinstance(metadata, dict):
        raise DamagedCheckpointError(f"{path} has no metadata of fer_jax, which did not write it")
    if _DIGEST not in notes:
        _note_missing_digest(path)
    elif notes[_DIGEST] != _digest(header, data):
        raise DamagedCheckpointError(f"{path} holds other values than were saved: its digest differs")
    return variables, metadata


@functools.cache  # once for each file
def _note_missing_digest(path: pathlib.Path) -> None:
    logging.warning("%s has no digest, as older files: whether it is damaged cannot be checked", path)


def _load_orbax(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    import jax
    import orbax.checkpoint as ocp

    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            state = reader.restore(path / "state")
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            extra = reader.restore(path / "extra")
        checksums = verified_checksums(extra)
        names = ["ema"] if state.get("ema") else ["params", "batch_stats"]
        found = {name: jax.tree.map(np.asarray, state[name]) for name in names}
        intact = all(checksum(tree) == checksums[name] for name, tree in found.items())
        metadata = extra["facts"]
    except Exception as error:  # Orbax and TensorStore raise many types for a broken file
        if refused(error):
            raise
        raise DamagedCheckpointError(f"{path} cannot be read: {error}") from error
    if not intact:
        raise DamagedCheckpointError(f"{path} holds other values than were saved: its checksum differs")
    return found.get("ema", found), metadata


def refused(error: Exception) -> bool:
    """Returns whether the machine refused to read, which says nothing about the file."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _REFUSALS


def verified_checksums(extra: dict[str, Any]) -> dict[str, int]:
    """Returns the checksums of a checkpoint's arrays from its JSON, which is verified first.

    Checkpoints of older versions have no checksum of the JSON.

    Args:
      extra: the JSON.

    Raises:
      DamagedCheckpointError: the JSON holds other values than were saved.
      LookupError, TypeError, AttributeError: it is no such JSON.
    """
    checksums = dict(extra[CHECKSUMS])
    if checksums.pop(EXTRA, found := checksum_of_json(extra)) != found:
        raise DamagedCheckpointError("its JSON holds other values than were saved (checksum)")
    return checksums


def checksum_of_json(extra: dict[str, Any]) -> int:
    """Returns the CRC-32 over a checkpoint's JSON, its checksums left out."""
    kept = {key: value for key, value in extra.items() if key != CHECKSUMS}
    return zlib.crc32(json.dumps(kept, sort_keys=True).encode())


def checksum(tree: Any) -> int:
    """Returns the CRC-32 over the leaves of a tree, in order."""
    import jax

    crc = 0
    for leaf in jax.tree.leaves(tree):
        crc = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), crc)
    return crc
