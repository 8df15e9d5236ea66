"""fer-jax COMMAND: everything that fer_jax does, one command each."""

import importlib
import sys

from fer_jax import __version__

COMMANDS = {
    "prepare": "make a dataset of fer2013.csv, image folders or drawn faces",
    "audit": "find copies, blanks, altered pixels and wrong labels in such a source",
    "train": "train and evaluate a network as a config says",
    "train-list": "train a list of configs, one after the other",
    "sweep": "search over fields of a config",
    "ablate": "train with one change at a time, and compare",
    "label-errors": "find training labels that are probably wrong",
    "port-weights": "turn ImageNet weights of Keras, timm or torchvision into a file to start from",
    "evaluate": "score a network on a split, with intervals, calibration and leaks",
    "calibrate": "fit a network's temperature",
    "compare": "compare predictions of several networks on one split",
    "ensemble": "choose networks that are better together",
    "cross-dataset": "score networks on datasets that they were not trained on",
    "robustness": "score a network on corrupted faces",
    "saliency": "draw where a network looks",
    "check-invariance": "check that predictions do not depend on batches and devices",
    "export": "write a network as ONNX, TFLite, StableHLO or safetensors",
    "predict": "predict emotions in pictures, folders and videos",
    "serve": "serve predictions over HTTP",
    "app": "open the app in a browser",
}


def main() -> int | None:
    """Runs the command that the first argument names, with the arguments after it.

    Returns:
      Its exit code; 2 where there is no such command.
    """
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"  {command:{width}}  {what}" for command, what in COMMANDS.items()]
        print("\n".join(["usage: fer-jax COMMAND ...", "", *lines, "", "fer-jax COMMAND --help says more."]))
        return 0
    if name == "--version":
        print(__version__)
        return 0
    if name not in COMMANDS:
        print(f"error: there is no command {name!r}; fer-jax --help lists them", file=sys.stderr)
        return 2
    sys.argv = [f"fer-jax {name}", *arguments]
    return importlib.import_module(f"fer_jax.commands.{name.replace('-', '_')}").main()


if __name__ == "__main__":
    sys.exit(main())
