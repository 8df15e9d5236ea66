"""Runs a training in a process that ends itself at a chosen point.

    python interrupted_run.py SPEC [COORDINATOR PROCESS COUNT]

SPEC is JSON with "data", "workdir", "changes" of the tiny configuration, perhaps "refused_first", with which
the run is first started while its directory is in use, and at most one of

  "signal": [NAME, STEP, PROCESS]  that process sends itself this signal once step STEP has been counted;
  "kill_in_save": [EVENT, STEP]  SIGKILL at the first EVENT ("open" or "os.rename", see Python's
    audit events) on the temporary folder of the checkpoint of STEP.

TensorFlow cannot be imported in this process, and figures are empty pictures.
"""

import json
import os
import pathlib
import signal
import sys
from importlib.machinery import PathFinder


class NoTensorFlow(PathFinder):
    """Finds what is installed but TensorFlow, as if it were not."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            return None
        return PathFinder.find_spec(name, path, target)


def main(spec, *distributed):
    sys.meta_path[sys.meta_path.index(PathFinder)] = NoTensorFlow
    import jax
    from helpers import TwoLayers, save_empty, tiny_config
    from matplotlib.figure import Figure

    from fer_jax import models
    from fer_jax.training.monitoring import Window
    from fer_jax.training.run_dir import exclusive
    from fer_jax.training.train import train_and_evaluate

    add = Window.add

    def add_and_signal(self, step, metrics):
        add(self, step, metrics)
        if "signal" in spec and [step, jax.process_index()] == spec["signal"][1:]:
            os.kill(os.getpid(), getattr(signal, spec["signal"][0]))

    def kill_in_save(event, arguments):
        if "kill_in_save" in spec and event == spec["kill_in_save"][0]:
            folder = f"/checkpoints/{spec['kill_in_save'][1]}."
            if folder in str(arguments[0]):
                os.kill(os.getpid(), signal.SIGKILL)

    if distributed:
        coordinator, process, count = distributed
        jax.distributed.initialize(coordinator, int(count), int(process))
    Figure.savefig = save_empty
    Window.add = add_and_signal
    sys.addaudithook(kill_in_save)
    models.MODELS["two_layers"] = TwoLayers
    config, workdir = tiny_config(spec["data"]), pathlib.Path(spec["workdir"])
    config.model.kwargs = {}
    config.update_from_flattened_dict(spec["changes"])
    if "refused_first" in spec:
        try:
            with exclusive(workdir):
                train_and_evaluate(config, workdir)
        except ValueError as error:
            print(error)
    summary = train_and_evaluate(config, workdir)
    assert not any(name.partition(".")[0] == "tensorflow" for name in sys.modules)
    print(json.dumps(summary))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), *sys.argv[2:])
