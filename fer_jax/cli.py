"""The command line, `fer-jax COMMAND`: a table of the modules in `commands`."""

import importlib
import sys

from fer_jax import __version__

COMMANDS = {
    "prepare": "prepare a dataset from fer2013.csv, image folders, or synthetic faces",
    "audit": "check a source for duplicates, blank images, altered pixels, and wrong labels",
    "train": "train and evaluate a network from a config",
    "train-list": "train and evaluate several configs in turn",
    "sweep": "train variants of a config, and rank or compare them",
    "label-errors": "find training labels that are likely wrong",
    "port-weights": "convert ImageNet weights from Keras, timm, or torchvision",
    "evaluate": "evaluate a network on a split, with confidence intervals, calibration, and leakage",
    "calibrate": "calibrate a network's confidence (temperature scaling)",
    "compare": "compare networks on one split",
    "ensemble": "select an ensemble on one split",
    "cross-dataset": "evaluate networks on several datasets",
    "robustness": "evaluate a network on corrupted faces",
    "saliency": "plot which parts of a face support a prediction (Grad-CAM)",
    "check-invariance": "check that predictions do not depend on batch size, order, or devices",
    "export": "export a network to ONNX, TFLite, StableHLO, or safetensors",
    "predict": "predict emotions in images, folders, videos, and streams",
    "serve": "serve predictions over HTTP",
    "app": "open the app in a browser",
    "completion": "print a shell completion script",
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
        print(f"error: unknown command {name!r}; fer-jax --help lists all commands", file=sys.stderr)
        return 2
    return 0
