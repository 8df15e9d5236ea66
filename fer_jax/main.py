"""Trains and evaluates: fer-jax train --config cnn [--workdir runs/cnn], or python -m fer_jax.main.

Run the same command to resume a run that stopped. Any field of the configuration can be
overridden: --config.optim.learning_rate=0.05. configs/default.py lists them all. --verbosity=1
shows where in the code an error came from.

Several processes train together with --coordinator; a cluster (Slurm, Open MPI, Cloud TPU) is
found without it.
"""

import logging
import os
import pathlib
import sys
import traceback

# Before jaxlib is loaded: at this level XLA does not raise its alarm over a slow compilation.
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
    """Parses flags as absl does; a missing experiment or field is a line instead of a traceback."""
    try:
        rest = app.parse_flags_with_usage(with_paths(argv))
        dict(_CONFIG.value)  # where loading the experiment failed, this raises
        return rest
    except ValueError as error:
        sys.exit(f"error: {error}")
    except (AttributeError, KeyError) as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not frame.f_globals["__name__"].startswith("ml_collections."):
            raise  # a mistake in the experiment's own code
        reason = error.args[0]
        if isinstance(reason, KeyError):  # whose text would be its quoted message
            reason = reason.args[0]
        hint = ""
        if any("config.model.kwargs." in argument for argument in argv):
            hint = "; of model.kwargs only what the config sets can be overridden: add the attribute there"
        sys.exit(f"error: no such field in the configuration: {reason}{hint}")


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
    """Returns whether the environment describes several processes that `jax.distributed` finds by itself."""
    counts = (os.environ.get(name, "1") for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    return any(count not in ("", "1") for count in counts) or "," in os.environ.get(
        "TPU_WORKER_HOSTNAMES", ""
    )


def main(argv: list[str]) -> None:
    """Trains as the flags say; exits with a line about an error that the user can correct."""
    for name in ("absl", "jax"):  # Orbax logs through absl's; our own messages come from the root
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
    # After the flags are parsed, so that --help needs neither a device nor seconds.
    import jax

    from fer_jax import runtime

    runtime.tune_cpu()  # before anything starts threads
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
            os._exit(1)  # at its exit JAX would wait for the other process, and abort
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
