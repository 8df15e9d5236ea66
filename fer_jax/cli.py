"""The command line, fer-jax COMMAND: a table of commands and their modules in `commands`."""

import importlib
import sys

from fer_jax import __version__

COMMANDS = {
    "prepare": "make a dataset from fer2013.csv, image folders or synthetic faces",
    "audit": "check a source for duplicates, blank images, altered pixels and wrong labels",
    "train": "train and evaluate a network from a config",
    "train-list": "train and evaluate a list of configs, one after the other",
    "sweep": "train a config with other values of its fields, and rank or compare the results",
    "label-errors": "find training labels that are likely wrong",
    "port-weights": "convert ImageNet weights of Keras, timm or torchvision to initialize from",
    "evaluate": "evaluate a network on a split, with confidence intervals, calibration, and leakage",
    "calibrate": "fit a network's temperature",
    "compare": "compare networks by their predictions on one split",
    "ensemble": "choose an ensemble by predictions on one split",
    "cross-dataset": "score networks on several datasets",
    "robustness": "score a network on corrupted faces",
    "saliency": "plot which parts of a face support a prediction (Grad-CAM)",
    "check-invariance": "check that predictions do not depend on batch size, order or devices",
    "export": "write a network as ONNX, TFLite, StableHLO or safetensors",
    "predict": "predict emotions in images, folders and videos",
    "serve": "serve predictions over HTTP",
    "app": "open the app in a browser",
    "completion": "print a script that completes commands and flags in a shell",
}


def main() -> int | None:
    """Runs the command that the first argument names; returns its exit code, 2 for an unknown command."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {command:{width}}  {what}" for command, what in COMMANDS.items()]
        end = "Run `fer-jax COMMAND --help` for details."
        print("\n".join(["usage: fer-jax COMMAND ...", "", *lines, "", end]))
    elif name == "--version":
        print(__version__)
    elif name in COMMANDS:
        sys.argv = [f"fer-jax {name}", *arguments]
        return importlib.import_module(f"fer_jax.commands.{name.replace('-', '_')}").main()
    else:
        print(f"error: there is no command {name!r}; fer-jax --help lists them", file=sys.stderr)
        return 2
    return 0
