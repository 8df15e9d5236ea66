"""Flags that commands share, the weights and data that they name, and error handling.

Imports JAX only when the work starts, so that --help and flag errors are fast.
"""

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_jax import errors, io_utils
from fer_jax.data.ferplus import GIVEN, RULES
from fer_jax.data.sources.record import SPLITS
from fer_jax.inference.engines import ENGINES
from fer_jax.pretrained.registry import BUNDLED, DEFAULT, find_weights

if TYPE_CHECKING:
    from fer_jax.evaluation.labelled_split import LabelledSplit
    from fer_jax.pretrained.loaded_model import LoadedModel

# Training flags that the commands set themselves.
OWN = ("config", "workdir", "config.data.dir", "config.data.image_size", "config.seed")
_NAMES = ", ".join(BUNDLED)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of a description, and appends a flag's default to its help."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        default = action.default
        if isinstance(default, list | tuple):
            default = " ".join(map(str, default))
        told = default in (None, "", argparse.SUPPRESS) or default is False or "(default" in str(action.help)
        return action.help if told else f"{action.help} (default: {default})"


def plain_parser(doc: str | None) -> argparse.ArgumentParser:
    """Returns a parser without flags whose --help shows the command's docstring, and flags' defaults."""
    return argparse.ArgumentParser(description=doc, formatter_class=_HelpFormatter)


def make_parser(doc: str | None, out: str | None = None) -> argparse.ArgumentParser:
    """Returns a parser with the flags for weights, data, split, and, with its purpose `out`, --out."""
    parser = plain_parser(doc)
    add_weights(parser)
    parser.add_argument("--data", required=True, metavar="DATA", help="dataset from fer-jax prepare")
    add_split(parser, "split of the dataset")
    if out:
        parser.add_argument("--out", required=True, metavar="OUT", help=out)
    return parser


def make_evaluation_parser(doc: str | None, out: str, batch_size: int = 256) -> argparse.ArgumentParser:
    """Returns the parser of `make_parser` with the flags that `open_evaluation` reads, and --batch_size."""
    parser = make_parser(doc, out)
    rules = f"labels to score against: {GIVEN} (from the dataset) or, from FER+ votes, {', '.join(RULES)}"
    text = f"{rules} (default: as in training)"
    parser.add_argument("--labels", choices=(GIVEN, *RULES), metavar="LABELS", help=text)
    text = "number of classes to score; 7 excludes contempt, and faces with that label "
    text += f"(default: the network's; 7 with --labels {GIVEN})"
    parser.add_argument("--classes", type=int, choices=(7, 8), help=text)
    add_batch_size(parser, batch_size)
    return parser


def add_training_data(parser: argparse.ArgumentParser) -> None:
    """Adds --training_data, for `labelled_split.find_duplicates`."""
    text = "datasets of the training, if not --data: faces with a copy there are counted, and scored apart"
    parser.add_argument("--training_data", nargs="+", default=[], metavar="DATA", help=text)


def add_split(parser: argparse.ArgumentParser, text: str) -> None:
    """Adds --split."""
    parser.add_argument("--split", default="validation", choices=SPLITS, help=text)


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Adds --workdir and --checkpoint, for `open_weights`."""
    weights = parser.add_mutually_exclusive_group(required=True)
    weights.add_argument("--workdir", metavar="RUN", help="run directory, whose best weights are used")
    text = f".safetensors file, checkpoint (RUN/checkpoints/STEP), or bundled network: {_NAMES}"
    weights.add_argument("--checkpoint", metavar="PATH", help=text)


def add_predictor(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `Predictor.load` takes: --model, --detector, --engine and --margin."""
    add = parser.add_argument
    text = f"a .safetensors file, a run's directory or a bundled network: {_NAMES}"
    add("--model", default=DEFAULT, metavar="WEIGHTS", help=text)
    text = "face detector; whole: each image is one face"
    add("--detector", default="yunet", choices=("yunet", "mediapipe", "whole"), help=text)
    text = "run the network in ONNX Runtime (on the CPU) or JAX (default: auto, JAX if it has a GPU)"
    add("--engine", default="auto", choices=ENGINES, help=text)
    text = "size of the face crop relative to the training crop"
    add("--margin", type=float, default=1.0, help=text)


def make_training_parser(
    doc: str | None, *, runs: bool = False, data: bool = True
) -> argparse.ArgumentParser:
    """Returns a parser for a command that trains; flags after -- are passed to every run.

    `runs` adds --out and --dry-run; `data` adds --config, --data, and --image_size.
    """
    parser = plain_parser(doc)
    parser.add_argument("arguments", nargs="*", help="flags passed to every run, after --")
    add = parser.add_argument
    if runs:
        add("--out", type=Path, required=True, help="output folder for runs and results")
        add("--dry-run", action="store_true", help="check and list the runs, then exit")
    if data:
        add("--config", default="ablation", metavar="NAME", help="experiment name or config file")
        add("--data", type=Path, default=Path("data/fer2013"), help="dataset from fer-jax prepare")
        text = "resize images of different sizes to N x N"
        add("--image_size", type=at_least_one, metavar="N", help=text)
    return parser


def data_flags(options: argparse.Namespace) -> list[str]:
    """Returns the training flags for --data and --image_size."""
    size = [f"--config.data.image_size={options.image_size}"] if options.image_size else []
    return [f"--config.data.dir={options.data.resolve()}", *size]


def refuse(parser: argparse.ArgumentParser, arguments: Iterable[str], own: Sequence[str] = OWN) -> None:
    """Exits with an error if one of `arguments` is a flag that the command sets itself."""
    for argument in arguments:
        if argument.split("=")[0].lstrip("-") in own:
            parser.error(f"{argument} after --: the command sets this flag for each run")


def number(kind: type, least: float, most: float = 1e9) -> Callable[[str], Any]:
    """Returns a function that parses the value of a flag, an int or a float from `least` to `most`."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r}: expected {kind.__name__}, {least:g} to {most:g}")
        return value

    return parse


at_least_one = number(int, 1)


def add_batch_size(parser: argparse.ArgumentParser, default: int) -> None:
    """Adds --batch_size."""
    text = "images per batch"
    parser.add_argument("--batch_size", type=at_least_one, default=default, metavar="N", help=text)


def open_weights(args: argparse.Namespace) -> "LoadedModel":
    """Loads the network that --workdir or --checkpoint names.

    Raises:
      FileNotFoundError: the weights do not exist.
      As `LoadedModel`.
    """
    from fer_jax import runtime
    from fer_jax.pretrained import weights_file
    from fer_jax.pretrained.loaded_model import LoadedModel

    runtime.tune_cpu()
    if args.checkpoint:
        return LoadedModel(find_weights(args.checkpoint))
    weights = Path(args.workdir) / weights_file.BEST_WEIGHTS
    if not weights.is_file():
        raise FileNotFoundError(
            f"{weights} does not exist: --workdir takes a run directory, where the first evaluation writes "
            "this file; for other weights use --checkpoint"
        )
    return LoadedModel(weights)


def open_folder(out: str | Path, flag: str = "--out") -> Path:
    """Returns the output folder, created if it does not exist.

    Raises:
      OSError: it is not writable; the message names the flag.
    """
    path = Path(out)
    with io_utils.named_by(flag, path):
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    return path


def open_evaluation(
    args: argparse.Namespace,
) -> tuple["LoadedModel", "LabelledSplit", dict[str, Any], Path]:
    """Opens the weights, split, metadata, and output folder that the flags of `make_evaluation_parser` name.

    Raises:
      As `open_weights`, `labelled_split.load_labelled`, and `open_folder`.
    """
    from fer_jax.evaluation import labelled_split

    model = open_weights(args)
    labelled = labelled_split.load_labelled(model, args.data, args.split, args.labels, args.classes)
    return model, labelled, labelled.metadata, open_folder(args.out)


def run(work: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Runs a command; returns the exit code of `work`, or 2 for an error that the user can fix."""
    try:
        return work(args)
    except Exception as error:
        reason = errors.explain(error, getattr(args, "out", "."))
        if reason is None:
            raise
        print(f"error: {reason}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped before the end", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)  # at a normal exit a running compilation would crash the interpreter
