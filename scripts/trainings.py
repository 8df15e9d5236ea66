"""What the scripts that train several times share: the training's command, and a table with its origin."""

import argparse
import pathlib
import subprocess
import sys
from collections.abc import Iterable, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[1]
_PROBE = "import jax; d = jax.devices(); print(len(d), d[0].device_kind, 'jax', jax.__version__, sep=', ')"


def make_parser(description: str) -> argparse.ArgumentParser:
    """A parser that shows the script's text as it is written, and takes what follows -- for the trainings."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("arguments", nargs="*", help="after --: for fer_jax.main")
    return parser


def add_data(parser: argparse.ArgumentParser) -> None:
    """Adds --config, --data and --image_size: what is trained on, and how."""
    parser.add_argument(
        "--config", default="configs/ablation.py", metavar="FILE", help="(default: configs/ablation.py)"
    )
    parser.add_argument(
        "--data", type=pathlib.Path, default=ROOT / "data/fer2013", help="(default: data/fer2013)"
    )
    parser.add_argument("--image_size", type=int, metavar="N", help="common side for images of mixed sizes")


def data_flags(options: argparse.Namespace) -> list[str]:
    """The training's flags for what `add_data` adds."""
    size = [f"--config.data.image_size={options.image_size}"] if options.image_size else []
    return [f"--config.data.dir={options.data.resolve()}", *size]


def refuse(parser: argparse.ArgumentParser, arguments: Iterable[str], own: Sequence[str]) -> None:
    """Ends with a line about the first of `arguments` that sets one of the flags `own` to the script."""
    for argument in arguments:
        if argument.split("=")[0].lstrip("-") in own:
            parser.error(f"{argument} after --: the script sets this for each training itself")


def train(config: str, workdir: pathlib.Path, *arguments: str) -> int:
    """Trains, goes on, or recognises a finished run, in a process of its own; its exit code."""
    flags = ["--config", config, "--workdir", str(workdir), *arguments]
    print("\n$ python -m fer_jax.main " + " ".join(flags), flush=True)
    return subprocess.run([sys.executable, "-m", "fer_jax.main", *flags], cwd=ROOT).returncode


def origin() -> str:
    """How the script was called, at which commit, on what."""
    command = " ".join(["python", f"scripts/{pathlib.Path(sys.argv[0]).name}", *sys.argv[1:]])
    commit = _output_of("git", "rev-parse", "--short", "HEAD") or "unknown"
    return f"`{command}`, commit {commit}, {_output_of(sys.executable, '-c', _PROBE) or 'unknown device'}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table in Markdown."""
    return [_line(columns), "|" + "---|" * len(columns), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _output_of(*command: str) -> str:
    """What a command prints, "" where it fails."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""
