"""Runs programs in forks of this process, which has imported their dependencies except TensorFlow.

Reads lines of JSON: [number of devices, name of a function below, lists of its arguments]. Forks a process
for each of these lists, all at the same time, and writes a line of JSON with [exit code, stdout, stderr] for
each. With JAX_ENABLE_X64, everything is computed in float64.
"""

import atexit
import contextlib
import gc
import json
import multiprocessing
import os
import pathlib
import signal
import sys
import tempfile

import jax

if jax.config.jax_enable_x64:  # before the defaults of layers are read
    jax.numpy.float32 = jax.numpy.float64

import spread_steps
from absl import app
from helpers import TwoLayers, save_empty, tiny_config
from matplotlib.figure import Figure

from fer_jax import main, models
from fer_jax.training.monitoring import Window
from fer_jax.training.run_dir import exclusive
from fer_jax.training.train import train_and_evaluate

spread = spread_steps.main


def command(*arguments):
    """Runs `fer-jax train ARGUMENTS`."""
    sys.argv = ["python -m fer_jax.main", *arguments]
    app.run(main.main, flags_parser=main.parse_flags)


def python(code, *arguments):
    """Runs `python -c CODE ARGUMENTS`."""
    sys.argv = ["-c", *arguments]
    exec(code, {"__name__": "__main__"})


def interrupted(spec, *distributed):
    """Trains until a chosen point, where the process stops or kills itself; prints the summary.

    Args:
      spec: JSON with "data", "workdir" and "changes" of the tiny configuration, perhaps "refused_first", with
        which the run is first started while its directory is in use, and at most one of

        "signal": [NAME, STEP, PROCESS]  that process sends itself this signal once step STEP is counted;
        "kill_in_save": [EVENT, STEP]  SIGKILL at the first EVENT ("open" or "os.rename", see Python's
          audit events) on the temporary folder of the checkpoint of STEP.
      *distributed: coordinator, number of this process and their count.
    """
    spec, add = json.loads(spec), Window.add
    config, workdir = tiny_config(spec["data"]), pathlib.Path(spec["workdir"])
    config.model.kwargs = {}
    config.update_from_flattened_dict(spec["changes"])

    def add_and_signal(self, step, metrics):
        add(self, step, metrics)
        if "signal" in spec and [step, jax.process_index()] == spec["signal"][1:]:
            os.kill(os.getpid(), getattr(signal, spec["signal"][0]))

    def kill_in_save(event, arguments):
        if "kill_in_save" in spec and event == spec["kill_in_save"][0]:
            if f"/checkpoints/{spec['kill_in_save'][1]}." in str(arguments[0]):
                os.kill(os.getpid(), signal.SIGKILL)

    if distributed:
        coordinator, process, count = distributed
        jax.distributed.initialize(coordinator, int(count), int(process))
    Figure.savefig, Window.add = save_empty, add_and_signal
    sys.addaudithook(kill_in_save)
    models.MODELS["two_layers"] = TwoLayers
    if "refused_first" in spec:
        try:
            with exclusive(workdir):
                train_and_evaluate(config, workdir)
        except ValueError as error:
            print(error)
    print(json.dumps(train_and_evaluate(config, workdir)))


def fork(name, arguments, outputs):
    """Runs a function and the exit handlers in a fork."""
    signal.alarm(600)
    for number, file in enumerate(outputs, 1):
        os.dup2(file.fileno(), number)
    try:
        sys.exit(globals()[name](*arguments))
    finally:
        atexit._run_exitfuncs()


def serve():
    context = multiprocessing.get_context("fork")
    gc.freeze()  # otherwise garbage collection in forks copies the imported modules
    for line in sys.stdin:
        devices, name, asked = json.loads(line)
        jax.config.update("jax_num_cpu_devices", devices)
        jax.config.update("jax_enable_compilation_cache", len(asked) == 1)  # else each compiles separately
        with contextlib.ExitStack() as stack:
            files = [[stack.enter_context(tempfile.TemporaryFile("w+")) for _ in "oe"] for _ in asked]
            forks = [context.Process(target=fork, args=(name, *of)) for of in zip(asked, files, strict=True)]
            for process in forks:
                process.start()
            for process in forks:
                process.join()
            for file in sum(files, []):
                file.seek(0)
            said = [[file.read() for file in outputs] for outputs in files]
        print(
            json.dumps([[process.exitcode, *of] for process, of in zip(forks, said, strict=True)]), flush=True
        )


if __name__ == "__main__":
    serve()
