"""Trains and evaluates a network: fer-jax train --config cnn [--workdir runs/cnn].

Run the same command to resume a stopped run. Any field of the config can be overridden, as in
--config.optim.learning_rate=0.05; configs/default.py lists all fields. --verbosity=1 shows tracebacks.

To train with several processes, set --coordinator; on Slurm, Open MPI, and Cloud TPU it is detected.
"""

import logging
import os
import pathlib
import sys
import traceback

# Set before jaxlib is loaded: suppresses XLA's warning about slow compilation.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import absl.logging
from absl import app, flags
from ml_collections import config_flags

import configs

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Required. Name of an experiment, such as cnn, or path of a config file. Override fields with "
    "--config.FIELD=VALUE.",
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Run directory (default: runs/CONFIG_NAME).")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, for training with several processes."
)
_PROCESS = flags.DEFINE_integer("process_id", 0, "Index of this process, from 0; requires --coordinator.")
_COUNT = flags.DEFINE_integer("num_processes", 1, "Total number of processes; requires --coordinator.")
flags.mark_flag_as_required("config")


def parse_flags(argv: list[str]) -> list[str]:
    """Parses flags with absl; reports a missing experiment or field in one line, without a traceback."""
    try:
        rest = app.parse_flags_with_usage(with_paths(argv))
        dict(_CONFIG.value)  # raises if the experiment could not be loaded
        return rest
    except ValueError as error:
        sys.exit(f"error: {error}")
    except (AttributeError, KeyError) as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not frame.f_globals["__name__"].startswith("ml_collections."):
            raise  # a bug in the experiment's own code
        reason = error.args[0]
        if isinstance(reason, KeyError):  # str() would quote its message
            reason = reason.args[0]
        hint = ""
        if any("config.model.kwargs." in argument for argument in argv):
            hint = "; only attributes that the config sets in model.kwargs can be overridden: add it there"
        sys.exit(f"error: the config has no such field: {reason}{hint}")


def with_paths(argv: list[str]) -> list[str]:
    """Returns the arguments with the experiment's name, such as `cnn`, replaced by the path of its file.

    Raises:
      ValueError: --config names neither a file nor an experiment.
    """
    found = list(argv)
    for i, (word, following) in enumerate(zip(argv, [*argv[1:], ""], strict=True)):
        if word == "--config" and following:
            found[i + 1] = configs.find(following)
        elif word.startswith("--config="):
            found[i] = f"--config={configs.find(word.removeprefix('--config='))}"
    return found


def in_cluster() -> bool:
    """Returns whether the environment describes a cluster that `jax.distributed` detects."""
    counts = (os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    return any(count not in ("", "1") for count in counts) or "," in os.environ.get(
        "TPU_WORKER_HOSTNAMES", ""
    )


def main(argv: list[str]) -> None:
    """Trains; exits with a one-line message for an error that the user can fix."""
    for name in ("absl", "jax"):  # Orbax logs through absl; our own messages use the root logger
        logging.getLogger(name).setLevel(logging.WARNING)
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}")
    if _COUNT.value > 1 and not _COORDINATOR.value:
        raise app.UsageError("--num_processes needs --coordinator=HOST:PORT, the same for every process")
    if not 0 <= _PROCESS.value < _COUNT.value:
        raise app.UsageError(
            f"--process_id={_PROCESS.value} is not in 0..{_COUNT.value - 1} (--num_processes)"
        )
    from fer_jax.training import peers

    if _COORDINATOR.value or in_cluster():
        peers.shorten_aborts()
    # Imported after the flags are parsed, so that --help is fast and needs no device.
    import jax

    from fer_jax import runtime

    runtime.tune_cpu()  # before any threads start
    from fer_jax import errors
    from fer_jax.training.monitoring import PreemptedError
    from fer_jax.training.train import train_and_evaluate

    if _COORDINATOR.value:
        jax.distributed.initialize(_COORDINATOR.value, _COUNT.value, _PROCESS.value)
    elif in_cluster():
        jax.distributed.initialize()
    name = pathlib.Path(config_flags.get_config_filename(flags.FLAGS["config"])).stem
    workdir = _WORKDIR.value or os.path.join("runs", name)
    try:
        summary = train_and_evaluate(_CONFIG.value, workdir)
    except PreemptedError as error:
        print(f"\nstopped at step {error.step}; run the same command to resume", file=sys.stderr)
        raise
    except Exception as error:
        reason = errors.explain(error, workdir)
        if reason is None and peers.is_loss(error) and not absl.logging.level_debug():
            print(f"\nerror: {peers.LOST} ({str(error).splitlines()[0]})", file=sys.stderr, flush=True)
            os._exit(1)  # a normal exit would wait for the other process, and abort
        if reason is None or absl.logging.level_debug():
            raise
        sys.exit(f"error: {reason}")
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; run the same command to resume from the newest checkpoint")
    if jax.process_index():
        return
    best = summary["best"]
    print(
        f"\nbest {best['metric']} {best['value']:.4f} on {best['split']} at epoch {best['epoch']}\n"
        f"report:       {workdir}/report/report.md\n"
        f"weights:      {workdir}/best.safetensors\n"
        f"curves:       {workdir}/training_curves.png\n"
        f"TensorBoard:  tensorboard --logdir {workdir}"
    )


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
