"""Training: `train_and_evaluate` is an entire run, `train` its loop, `summarize` its end."""

import contextlib
import logging
import pathlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from fer_jax.data import splits
from fer_jax.evaluation import leakage, leakage_policy
from fer_jax.evaluation.metrics import calibration
from fer_jax.evaluation.report import report, training_curves
from fer_jax.pretrained.weights_file import (
    BEST_WEIGHTS,
    CHECKPOINTS,
    DamagedCheckpointError,
    export_weights,
    load_weights,
)
from fer_jax.training.metric_writers import ProgressBar, read_records
from fer_jax.training.monitoring import PreemptedError, StopSignal, announced
from fer_jax.training.run import Run
from fer_jax.training.run_dir import check_identity, exclusive, finish, finished_summary
from fer_jax.training.sharding import all_or_none, all_processes
from fer_jax.training.split_prediction import StoppedError
from fer_jax.training.validate import validate


def train_and_evaluate(config: ConfigDict, workdir: str | pathlib.Path) -> dict[str, Any]:
    """Starts or resumes a run, and evaluates its best checkpoint; does nothing if the run is finished.

    The config is from `configs/default.py` or an experiment; the run directory is created.

    Returns:
      The content of `summary.json`: "best" (split, metric, value, step, epoch), "steps", "seconds" of
      training, "input_wait" (share of time waiting for input), "accuracy" and "macro_f1" of the best
      checkpoint on the selection split, "stopped_early".

    Raises:
      ValueError: the config is invalid (the message names the field), the directory belongs to another run,
        or another process is training in it.
      FileNotFoundError: the weights in `config.init_from` or `config.distill.teachers`, or the file
        `config.data.drop_ids`, do not exist.
      DamagedCheckpointError: weights cannot be read.
      NonFiniteLossError: the loss became NaN or infinite; earlier checkpoints are kept.
      PreemptedError: SIGTERM or Ctrl-C arrived; the state is saved.
    """
    workdir = pathlib.Path(workdir)
    with contextlib.ExitStack() as stack:
        with all_or_none():
            plan = validate(config)
            stack.enter_context(exclusive(workdir))
            check_identity(workdir, plan.identity)
        if summary := finished_summary(workdir):
            logging.info("this run is finished: %s", workdir / "report" / "report.md")
            return summary
        stop = stack.enter_context(StopSignal())
        with contextlib.closing(Run(plan, workdir, stop)) as run:
            train(run)
        return summarize(run)


def train(run: Run) -> None:
    """Trains until the end or an early stop, with reports, evaluations, and checkpoints.

    Raises:
      NonFiniteLossError: the loss became NaN or infinite.
      PreemptedError: a stop signal arrived; the state is saved.
    """
    config, tracker, save_every = run.config, run.plateau_tracker, run.config.checkpoint.every_steps
    with ProgressBar(run.total_steps, run.step, run.primary) as bar:
        run.window.start()
        while run.evaluation_due or (run.step < run.total_steps and not tracker.should_stop):
            if not run.evaluation_due:  # for example, if the previous start was stopped before evaluating
                size, batch = run.input_size(), run.next_batch()
                if run.is_compiled(size):
                    run.state, metrics = run.train_step(size)(run.state, batch, *run.constants)
                    bar.update()
                else:
                    with announced(f"compiling the training step at {size} x {size} pixels"):
                        run.state, metrics = run.train_step(size)(run.state, batch, *run.constants)
                    bar.skip()
                run.step += 1
                run.window.add(run.step, metrics)
                run.evaluation_due = run.is_evaluated_at(run.step)
                if run.evaluation_due or run.step % config.log_every == 0:
                    bar.set_postfix_str(run.report())

            stopping, result = preempted(run.stop, run.step), None
            if run.evaluation_due and not stopping:
                bar.clear()
                try:
                    result = run.evaluate()
                except StoppedError:
                    stopping = True

            run.enter_stage()  # before saving, because a checkpoint has the optimizer state of the next step

            if result or stopping or (save_every and run.step % save_every == 0):
                run.window.check()
                run.save(result)
            if stopping:
                raise PreemptedError(run.step)
            if result:
                run.window.start()


def preempted(stop: StopSignal, step: int) -> bool:
    """Returns whether a stop signal arrived; all processes stop at the same step."""
    if jax.process_count() > 1:
        return multihost_utils.reached_preemption_sync_point(step)
    return stop.received


def best_weights(run: Run) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the best weights and their metadata, and writes them to best.safetensors.

    They are read from the best checkpoint, with verified checksums, because the file may be damaged or, after
    a fallback to an older checkpoint, from a step that was not reached again. The file is used if that
    checkpoint does not exist, or was saved before the evaluation.

    Raises:
      DamagedCheckpointError: neither the checkpoint nor the file can be read.
    """
    path, best = run.workdir / BEST_WEIGHTS, run.plateau_tracker.best_step
    checkpoint = run.workdir / CHECKPOINTS / str(best)
    file, kept = (  # Orbax needs all processes for reading
        found if found and (found[1]["selection"] or {}).get("step") == best else None
        for found in (_load(path), _load(checkpoint))
    )
    if all_processes(kept is not None):
        with all_or_none():
            if run.primary and kept:
                export_weights(path, *kept, run.config.checkpoint.dtype)
        return load_weights(path)
    if not all_processes(file is not None) or not file:
        raise DamagedCheckpointError(
            f"the best weights, of step {best}, are neither in {checkpoint} nor in {path}: move "
            f"{run.workdir} to start over"
        )
    return file


def _load(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Loads weights; returns None if they do not exist or are damaged, which is reported."""
    try:
        return load_weights(path)
    except FileNotFoundError:
        return None
    except DamagedCheckpointError as error:
        logging.error("%s", error)
        return None


def summarize(run: Run) -> dict[str, Any]:
    """Writes the report on the best weights, the training curves, and the summary of a finished run.

    Returns:
      As `train_and_evaluate`; in processes other than the first only "steps".

    Raises:
      DamagedCheckpointError: the best weights are damaged.
      PreemptedError: with one process, a stop signal arrived before the end.
    """
    variables, metadata = best_weights(run)
    try:
        probs = run.predict(variables)
    except StoppedError:
        raise PreemptedError(run.step) from None
    if not run.primary:
        return {"steps": run.step}
    split, images, path = run.config.selection.split, run.selection.images, run.workdir / BEST_WEIGHTS
    metadata["calibration"] = calibration.calibrate(probs, run.selection.labels) | {
        "split": split,
        "split_hash": leakage_policy.split_hash(metadata["data"], split),
    }
    export_weights(path, variables, metadata, run.config.checkpoint.dtype)
    result = report.write_report(
        run.workdir / "report",
        probs,
        run.selection.labels,
        run.selection.ids,
        metadata=metadata | {"split": split, "checkpoint": str(path), "tta": "none"},
        images=images,
        groups=splits.duplicate_groups(images),
        copies=leakage.find_duplicates(images, run.plan.splits["train"].images, progress=False),
    )
    records = list(read_records(run.workdir))
    curves, metric = run.workdir / "training_curves.png", run.config.selection.metric
    training_curves.plot_training(records, curves, metric=metric)
    training = [record for record in records if record["kind"] == "train"]
    seconds = np.array([record["seconds"] for record in training])
    waits = np.array([record["input_wait"] for record in training])
    summary = {
        "best": metadata["selection"],
        "steps": run.step,
        "seconds": round(float(seconds.sum()), 1),
        "input_wait": float(waits @ seconds / max(seconds.sum(), 1e-9)),
        "accuracy": result["accuracy"],
        "macro_f1": result["macro_f1"],
        "stopped_early": run.step < run.total_steps,
    }
    finish(run.workdir, summary)
    return summary
