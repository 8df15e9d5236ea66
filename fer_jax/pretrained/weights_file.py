"""Reads and writes a network's weights and metadata: safetensors files, and checkpoints of runs.

Imports JAX only where needed, because that takes longer than loading weights.
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
    """A checkpoint that cannot be read, or whose content has changed."""


def export_weights(
    path: os.PathLike | str, variables: dict[str, Any], metadata: dict[str, Any], dtype: str = "float32"
) -> None:
    """Writes {"params", "batch_stats"} and their metadata to one safetensors file, atomically.

    The file includes a digest of both, which `load_weights` checks.

    Args:
      path: the file.
      variables: trees of arrays.
      metadata: JSON types: model, preprocess, emotions, config, data_hash, selection, and so on.
      dtype: dtype of the stored kernels (parameters with two or more dimensions); the rest is float32.
    """
    tensors = {}
    for name, value in flatten(variables).items():
        value = np.asarray(value, np.float32)
        tensors[name] = np.ascontiguousarray(value.astype(dtype) if value.ndim > 1 else value)
    content = with_notes(save(tensors), {_METADATA: json.dumps(metadata, sort_keys=True)})
    write_atomically(pathlib.Path(path), content)


def with_notes(content: bytes, notes: dict[str, str]) -> bytes:
    """Returns a safetensors file with notes added to its header, and a digest of its content."""
    header, data = _split(content)
    header[_NOTES] = dict(sorted((header.get(_NOTES, {}) | notes).items()))
    header[_NOTES][_DIGEST] = _digest(header, data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # aligns the data, as safetensors does
    return len(text).to_bytes(8, "little") + text + data


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Returns the header and the data of a safetensors file."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def _digest(header: dict[str, Any], data: bytes) -> str:
    """Returns 'sha256:' and the digest of a safetensors file without its digest field."""
    notes = {name: text for name, text in header[_NOTES].items() if name != _DIGEST}
    found = hashlib.sha256(json.dumps(header | {_NOTES: notes}, sort_keys=True).encode())
    found.update(data)
    return f"sha256:{found.hexdigest()}"


def load_weights(path: os.PathLike | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Loads weights to evaluate with, and their metadata.

    A safetensors file without a digest, such as from an older version, is loaded with a warning.

    Args:
      path: a safetensors file from `export_weights`, a checkpoint of a run, or a run directory (its best
        weights).

    Returns:
      {"params", "batch_stats"} with float32 NumPy leaves (the EMA weights if the run has them), and the
      metadata.

    Raises:
      FileNotFoundError: there are no weights at `path`.
      DamagedCheckpointError: the weights cannot be read, or their digest differs.
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
        f"(RUN/{CHECKPOINTS}/STEP), or a run directory with {BEST_WEIGHTS}"
    )


def flatten(tree: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the leaves of nested dictionaries by path, joined by slashes as in a file."""
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
            f"{path} is not a complete safetensors file with fer_jax metadata: {error}"
        ) from error
    if not isinstance(metadata, dict):
        raise DamagedCheckpointError(f"{path} has no fer_jax metadata: it was written by another program")
    if _DIGEST not in notes:
        _note_missing_digest(path)
    elif notes[_DIGEST] != _digest(header, data):
        raise DamagedCheckpointError(f"{path} is damaged: its digest differs")
    return variables, metadata


@functools.cache  # once per file
def _note_missing_digest(path: pathlib.Path) -> None:
    logging.warning("%s has no digest, as files from older versions: damage cannot be detected", path)


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
        raise DamagedCheckpointError(f"{path} is damaged: its checksum differs")
    return found.get("ema", found), metadata


def refused(error: Exception) -> bool:
    """Returns whether the error is the system's, and does not indicate a damaged file."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _REFUSALS


def verified_checksums(extra: dict[str, Any]) -> dict[str, int]:
    """Verifies a checkpoint's JSON and returns the checksums of its arrays.

    Checkpoints from older versions have no checksum of the JSON.

    Raises:
      DamagedCheckpointError: the checksum of the JSON differs.
      LookupError, TypeError, AttributeError: the JSON lacks fields.
    """
    checksums = dict(extra[CHECKSUMS])
    if checksums.pop(EXTRA, found := checksum_of_json(extra)) != found:
        raise DamagedCheckpointError("the checksum of its JSON differs")
    return checksums


def checksum_of_json(extra: dict[str, Any]) -> int:
    """Returns the CRC-32 of a checkpoint's JSON without its checksums."""
    kept = {key: value for key, value in extra.items() if key != CHECKSUMS}
    return zlib.crc32(json.dumps(kept, sort_keys=True).encode())


def checksum(tree: Any) -> int:
    """Returns the CRC-32 of the leaves of a tree, in order."""
    import jax

    crc = 0
    for leaf in jax.tree.leaves(tree):
        crc = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), crc)
    return crc
