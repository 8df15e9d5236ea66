"""Saves and restores checkpoints of runs with Orbax.

A checkpoint is an Orbax directory, written under a temporary name and renamed when complete. It has the train
state and, as JSON, the position in the data, the progress of the run, and the metadata (config, data hash,
selection split), with checksums of both, so that damage is detected before training resumes.
"""

import dataclasses
import json
import logging
import os
import pathlib
from collections.abc import Callable, Collection
from typing import Any

import jax
import orbax.checkpoint as ocp

from fer_jax.pretrained.weights_file import (
    CHECKSUMS,
    EXTRA,
    DamagedCheckpointError,
    checksum,
    checksum_of_json,
    refused,
    verified_checksums,
)
from fer_jax.training.sharding import all_or_none, all_processes

DAMAGED = "damaged_checkpoints"


@dataclasses.dataclass(frozen=True)
class Restored:
    """A restored checkpoint."""

    step: int
    state: Any  # the saved tree, leaves as NumPy arrays
    extra: dict[str, Any]  # the JSON saved with it


class Checkpoints:
    """The checkpoints of one run: the newest `keep` ones and the best by the selection metric."""

    def __init__(self, directory: os.PathLike | str, keep: int = 2):
        policies = ocp.checkpoint_managers
        newest = policies.LatestN(keep)
        # Not Orbax's own metrics, because a single damaged metrics file prevents opening the directory.
        self._selections: dict[int, float | None] = {}
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
        self._selections |= {step: self._selection(step) for step in self.steps()}

    def steps(self) -> list[int]:
        """Returns the steps that have a complete checkpoint, oldest first."""
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: Any, extra: dict[str, Any], selection: float | None = None) -> None:
        """Waits for the previous save, and starts writing in the background.

        Keeps an existing checkpoint of this step, which may be from a run that was stopped before evaluating;
        a run that resumes from it evaluates again.

        Args:
          step: step of the state.
          state: tree of NumPy arrays, copied before this returns.
          extra: JSON to store with it, also copied.
          selection: the selection metric, if evaluated at this step (higher is better).

        Raises:
          Exception: the previous save failed, for example with OSError on a full disk.
        """
        self.wait()
        self._selections[step] = selection
        if step in self.steps():
            return
        # Orbax writes it later, when the run may have modified it.
        extra = json.loads(json.dumps(extra | {"selection": selection}))
        extra[CHECKSUMS] = _checksums(state) | {EXTRA: checksum_of_json(extra)}
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.StandardSave(state), extra=ocp.args.JsonSave(extra)),
            force=True,
        )

    def wait(self) -> None:
        """Waits for the last save; re-raises its error."""
        self._manager.wait_until_finished()
        self._manager.check_for_errors()

    def restore(self, step: int, template: Any, fields: Collection[str] = ()) -> Restored:
        """Restores the checkpoint of `step`, whose JSON must have `fields`.

        The template is a tree of NumPy arrays with the expected structure, shapes, and dtypes.

        Raises:
          DamagedCheckpointError: the checkpoint cannot be read, lacks a field, or its checksum differs.
          OSError, MemoryError: a system error, which does not indicate damage.
        """
        path = self.directory / str(step)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(template), extra=ocp.args.JsonRestore())
        try:
            restored = self._manager.restore(step, args=args)
            state, extra = restored["state"], restored["extra"]
            checksums = verified_checksums(extra)
        except Exception as error:  # Orbax and TensorStore raise many types for a damaged file.
            if refused(error):
                raise
            raise DamagedCheckpointError(f"{path} cannot be read: {error}") from error
        if missing := [name for name in fields if name not in extra]:  # older JSON has no checksum
            raise DamagedCheckpointError(f"{path} lacks {', '.join(missing)} in its JSON")
        if checksums != _checksums(state):
            raise DamagedCheckpointError(f"{path} is damaged: its checksum differs")
        kept = {key: value for key, value in extra.items() if key not in (CHECKSUMS, "selection")}
        return Restored(step, state, kept)

    def restore_newest(self, template: Callable[[int], Any], fields: Collection[str] = ()) -> Restored | None:
        """Restores the newest undamaged checkpoint; returns None if there is none.

        Reports damaged checkpoints, skips them, and moves them to a folder DAMAGED next to the directory.
        With several processes, skips checkpoints that any of them cannot read. Arguments are as in `restore`,
        the template by step.

        Raises:
          DamagedCheckpointError: all checkpoints are damaged; they are not moved.
        """
        steps = self.steps()
        for step in reversed(steps):
            restored = None
            try:
                restored = self.restore(step, template(step), fields)
            except DamagedCheckpointError as error:
                logging.error("damaged checkpoint: %s; using the one before it", error)
            if all_processes(restored is not None):
                self._set_aside(steps[steps.index(step) + 1 :])
                return restored
        if steps:
            raise DamagedCheckpointError(
                f"every checkpoint in {self.directory} (steps {steps}) is damaged; "
                "move the run directory to start over"
            )
        return None

    def _set_aside(self, steps: list[int]) -> None:
        """Moves the checkpoints of these steps away, because the run will reach these steps again."""
        if not steps:
            return
        with all_or_none():
            if jax.process_index() == 0:
                target = self.directory.with_name(DAMAGED)
                target.mkdir(exist_ok=True)
                for step in steps:
                    path, number = target / str(step), 1
                    while path.exists():
                        path, number = target / f"{step}.{number}", number + 1
                    os.rename(self.directory / str(step), path)
                    logging.error("moved to %s", path)
        self._manager.reload()

    def _selection(self, step: int) -> float | None:
        """Returns the selection metric of a checkpoint, None if there is none or it is damaged."""
        try:
            args = ocp.args.Composite(extra=ocp.args.JsonRestore())
            extra = self._manager.restore(step, args=args)["extra"]
            verified_checksums(extra)
            return extra.get("selection")
        except Exception:  # `restore` reports it.
            return None

    def close(self) -> None:
        """Waits for the last save and releases the directory."""
        try:
            self.wait()
        finally:
            self._manager.close()


@dataclasses.dataclass
class _Best(ocp.checkpoint_managers.PreservationPolicy):
    """A policy that keeps the checkpoint with the highest selection metric, the earliest in a tie."""

    selections: dict[int, float | None]  # by step, None if not evaluated

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        found = {step: value for step in steps if (value := self.selections.get(step)) is not None}
        best = max(found, key=lambda step: (found[step], -step), default=None)
        return [step == best for step in steps]


def _checksums(state: Any) -> dict[str, int]:
    """Returns the CRC-32 over the leaves of each field of a state (or entry of a dictionary)."""
    if not isinstance(state, dict):
        state = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: checksum(tree) for name, tree in state.items()}
