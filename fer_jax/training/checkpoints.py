"""Checkpoints: whole runs through Orbax, weights alone as safetensors.

A run's checkpoint is one Orbax directory, written aside and renamed when complete: the train state and, as
JSON, the data stream's position, what the run knows of its progress and the facts (config, data hash, which
split selected). A checksum over the arrays goes with it, so that damage is found before training goes on.
"""

import dataclasses
import errno
import json
import logging
import os
import pathlib
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import traverse_util
from jax.experimental import multihost_utils
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from fer_jax.io_utils import write_atomically

WEIGHTS_SUFFIX = ".safetensors"
CHECKPOINTS = "checkpoints"
DAMAGED = "damaged_checkpoints"
_REFUSALS = {
    getattr(errno, name) for name in "EACCES EAGAIN EIO EMFILE ENFILE ENOMEM EPERM ESTALE ETIMEDOUT".split()
}
BEST_WEIGHTS = f"best{WEIGHTS_SUFFIX}"


class DamagedCheckpointError(RuntimeError):
    """A checkpoint cannot be read or is not what was written."""


@dataclasses.dataclass(frozen=True)
class Restored:
    """What `Checkpoints.restore` found.

    Attributes:
      step: the checkpoint's step.
      state: the saved tree, leaves as NumPy arrays.
      extra: the JSON saved beside it.
    """

    step: int
    state: Any
    extra: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run: the newest `keep` and the best by the selection metric."""

    def __init__(self, directory: os.PathLike | str, keep: int = 2):
        policies = ocp.checkpoint_managers
        newest = policies.LatestN(keep)
        # Not Orbax's own metrics: it cannot open a directory where one such file is damaged.
        self._selections: dict[int, float] = {}
        best = _Best(self._selections)
        self.directory = pathlib.Path(directory).absolute()
        self._manager = ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy([newest, best]),
                save_decision_policy=policies.FixedIntervalPolicy(1),
                cleanup_tmp_directories=True,
            ),
        )
        for step in self.steps():
            self._note(step, self._selection(step))

    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, extra: dict[str, Any], selection: float | None = None) -> None:
        """Starts writing in the background; the previous save is awaited first.

        Args:
          step: of the state.
          state: tree of NumPy arrays, copied before this returns.
          extra: what else to keep, as JSON; copied likewise.
          selection: the selection metric where it was just measured (higher is better).

        Raises:
          Exception: whatever made the previous save fail, such as OSError on a full disk.
        """
        self.wait()
        # Orbax writes it later, when the run may have changed it.
        own = {"checksums": _checksums(state), "selection": selection}
        extra = json.loads(json.dumps(extra | own))
        self._note(step, selection)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                extra=ocp.args.JsonSave(extra),
            ),
            force=True,
        )

    def wait(self) -> None:
        """Waits until the last save is on disk, and raises what made it fail."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def restore(self, step: int, template: Any) -> Restored:
        """The checkpoint of `step`.

        Args:
          step: one of `steps()`.
          template: tree of NumPy arrays with the structure, shapes and dtypes to expect.

        Raises:
          DamagedCheckpointError: it cannot be read, or its checksum does not match.
          OSError, MemoryError: the machine refuses, which says nothing about the checkpoint.
        """
        path = self.directory / str(step)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(template), extra=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=args)
            state, extra = restored["state"], dict(restored["extra"])
        except Exception as error:  # Orbax and TensorStore raise many kinds for a broken file.
            if _refused(error):
                raise
            raise DamagedCheckpointError(f"{path} cannot be read: {error}") from error
        if extra.pop("checksums", None) != _checksums(state):
            raise DamagedCheckpointError(f"{path} holds other values than were saved (checksum)")
        extra.pop("selection", None)
        return Restored(step, state, extra)

    def restore_newest(self, template: Callable[[int], Any]) -> Restored | None:
        """The newest checkpoint that is whole, or None where there is none.

        `template` gives what `restore` expects at a step.

        Damaged ones are reported, passed over and moved to DAMAGED beside the directory. Several
        processes pass over what any of them cannot read.

        Raises:
          DamagedCheckpointError: there are checkpoints and every one is damaged; they stay.
        """
        steps = self.steps()
        for step in reversed(steps):
            restored = None
            try:
                restored = self.restore(step, template(step))
            except DamagedCheckpointError as error:
                logging.error("damaged checkpoint: %s; using the one before it", error)
            if all_processes(restored is not None):
                self._set_aside(steps[steps.index(step) + 1 :])
                return restored
        if steps:
            raise DamagedCheckpointError(
                f"every checkpoint in {self.directory} (steps {steps}) is damaged; "
                "move the work directory away to start anew"
            )
        return None

    def _set_aside(self, steps: list[int]) -> None:
        """Makes room for the run that goes on from before these steps, and keeps what is there."""
        if not steps:
            return
        if jax.process_index() == 0:
            target = self.directory.with_name(DAMAGED)
            target.mkdir(exist_ok=True)
            for step in steps:
                path, number = target / str(step), 1
                while path.exists():
                    path, number = target / f"{step}.{number}", number + 1
                os.rename(self.directory / str(step), path)
                logging.error("moved to %s", path)
        all_processes(True)  # which waits for the first
        self._manager.reload()

    def _selection(self, step: int) -> float | None:
        """The selection metric that was saved with a checkpoint, None also where it is damaged."""
        try:
            args = ocp.args.Composite(extra=ocp.args.JsonRestore())
            return self._manager.restore(step, args=args)["extra"].get("selection")
        except Exception:  # As in `restore`, which reports it.
            return None

    def _note(self, step: int, selection: float | None) -> None:
        self._selections.pop(step, None)
        if selection is not None:
            self._selections[step] = selection

    def close(self) -> None:
        """Waits for the last save and lets go of the directory."""
        self.wait()
        self._manager.close()


@dataclasses.dataclass
class _Best(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the checkpoint with the highest selection metric, of equals the earliest.

    Attributes:
      selections: the metric by step, where it was measured.
    """

    selections: dict[int, float]

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        measured = [step for step in steps if step in self.selections]
        best = max(measured, key=lambda step: (self.selections[step], -step), default=None)
        return [step == best for step in steps]


def _refused(error: Exception) -> bool:
    """Whether the machine refuses, which says nothing about what is on disk."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _REFUSALS


def all_processes(value: bool) -> bool:
    """Whether `value` is true in every process."""
    if jax.process_count() == 1:
        return value
    return bool(np.all(multihost_utils.process_allgather(np.array(value))))


def _checksums(state: Any) -> dict[str, int]:
    """CRC-32 over the leaves in order, of each field of a state (or entry of a dictionary)."""
    if not isinstance(state, dict):
        state = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: _checksum(tree) for name, tree in state.items()}


def _checksum(tree: Any) -> int:
    crc = 0
    for leaf in jax.tree.leaves(tree):
        crc = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), crc)
    return crc


def export_weights(
    path: os.PathLike | str, variables: dict[str, Any], facts: dict[str, Any], dtype: str = "float32"
) -> None:
    """Writes {"params", "batch_stats"} and the facts about them into one safetensors file, atomically.

    Args:
      path: the file.
      variables: trees of arrays.
      facts: JSON: model, preprocess, emotions, config, data_hash, selection and so on.
      dtype: type of the stored kernels (parameters of two or more dimensions); the rest stays float32.
    """
    tensors = {}
    for name, value in traverse_util.flatten_dict(variables, sep="/").items():
        value = np.asarray(value, np.float32)
        tensors[name] = np.ascontiguousarray(value.astype(dtype) if value.ndim > 1 else value)
    write_atomically(pathlib.Path(path), save(tensors, metadata={"facts": json.dumps(facts, sort_keys=True)}))


def load_weights(path: os.PathLike | str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights to evaluate with, and the facts about them.

    Args:
      path: a safetensors file that `export_weights` wrote, one step's directory of a run's checkpoints, or
        a run's work directory (its best weights).

    Returns:
      {"params", "batch_stats"} with float32 NumPy leaves (the averaged weights where the run kept any), and
      the facts.

    Raises:
      FileNotFoundError: nothing of the kind is at `path`.
      DamagedCheckpointError: it cannot be read.
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


def _load_safetensors(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(path, "numpy") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "null"))
            tensors = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise DamagedCheckpointError(
            f"{path} is not a whole safetensors file with facts by fer_jax: {error}"
        ) from error
    if facts is None:
        raise DamagedCheckpointError(f"{path} carries no fer_jax facts: it was not written by fer_jax")
    variables = traverse_util.unflatten_dict(tensors, sep="/")
    return {"batch_stats": {}, **variables}, facts


def _load_orbax(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
            state = reader.restore(path / "state")
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            extra = reader.restore(path / "extra")
        names = ["ema"] if state.get("ema") else ["params", "batch_stats"]
        found = {name: jax.tree.map(np.asarray, state[name]) for name in names}
        intact = all(_checksum(tree) == extra["checksums"][name] for name, tree in found.items())
        facts = extra["facts"]
    except Exception as error:  # Orbax and TensorStore raise many kinds for a broken file.
        if _refused(error):
            raise
        raise DamagedCheckpointError(f"{path} cannot be read: {error}") from error
    if not intact:
        raise DamagedCheckpointError(f"{path} holds other values than were saved (checksum)")
    return found.get("ema", found), facts
