"""Helpers for several test files: a tiny config, commands, and comparisons of runs."""

import contextlib
import csv
import importlib.util
import io
import json
import os
import pathlib
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from ml_collections import ConfigDict
from PIL import Image

from configs.default import get_config
from fer_jax import errors
from fer_jax.data.dataset import build, read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.models.layers import BatchNorm
from fer_jax.training import launch
from fer_jax.training.metric_writers import read_records
from fer_jax.training.train import train_and_evaluate

ROOT = pathlib.Path(__file__).resolve().parents[1]
# XLA's older emitters, without splitting programs, compile in a third of the time. Unknown flags end the
# process; the versions in constraints.txt support both.
QUICK_COMPILATION = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
TIMES = ("seconds", "images_per_second", "input_wait")
TINY = {
    "log_every": 2,
    "augment.flip": 0.5,
    "augment.rotation": 10.0,
    "augment.erasing": 0.5,
    "model.kwargs": {"widths": (4, 8), "hidden": 8, "dropout": 0.2},
    "model.input_size": 16,
    "loss.label_smoothing": 0.1,
    "loss.class_weights": "balanced",
    "optim.learning_rate": 0.05,
    "optim.weight_decay": 1e-3,
    "optim.warmup_epochs": 0.5,
    "train.batch_size": 16,
    "train.steps": 10,
    "train.ema_decay": 0.9,
}


def tiny_config(data_dir: pathlib.Path, **changes: Any) -> ConfigDict:
    """Returns a config of 10 steps on 70 faces in batches of 16, evaluated after steps 4, 9, and 10."""
    config = get_config()
    config.update_from_flattened_dict(TINY | {"data.dir": str(data_dir)} | changes)
    return config


def tiny_config_file(path: pathlib.Path, data_dir: pathlib.Path, **changes: Any) -> pathlib.Path:
    """Writes a module for --config that returns `tiny_config`."""
    path.write_text(
        "from configs.default import get_config as default\n\n\n"
        "def get_config():\n"
        "    c = default()\n"
        f"    c.update_from_flattened_dict({TINY | {'data.dir': str(data_dir)} | changes})\n"
        "    return c\n"
    )
    return path


def needed(module: str, extra: str) -> ModuleType:
    """Returns a module, or skips the test with installation instructions as the reason."""
    reason = f"needs {module}: pip install -c constraints.txt -e '.[{extra}]'"
    return pytest.importorskip(module, reason=reason)


def environment(**changes: str) -> dict[str, str]:
    """Returns the environment for a child process that imports the package and computes on the CPU.

    XLA skips most optimizations, to compile faster.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    ours = {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    return os.environ | ours | changes


def run_python(
    *arguments: Any, timeout: float = 600, cwd: pathlib.Path = ROOT, **env: str
) -> subprocess.CompletedProcess:
    """Runs `python ARGUMENTS`, by default in the checkout, and captures its output."""
    command = [sys.executable, *map(str, arguments)]
    how: dict[str, Any] = {"cwd": cwd, "env": environment(**env), "stdin": subprocess.DEVNULL}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, **how)


def script(name: str) -> ModuleType:
    """Returns the module of a command, given its name with underscores."""
    return importlib.import_module(f"fer_jax.commands.{name}")


def program(path: str) -> ModuleType:
    """Imports a program outside the package as a module."""
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem + "_program", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up there
    before = list(sys.path)
    sys.path.insert(0, str((ROOT / path).parent))  # as for a script
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


class Linear(nn.Module):
    """Softmax regression on the mean of each face, for any input size; compiles quickly.

    Attributes:
      spread: standard deviation of the initial kernel.
    """

    spread: float = 0.0
    num_classes: int = 7
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(self.spread))(x.mean((1, 2)))


class TwoLayers(nn.Module):
    """A trunk with BatchNorm and dropout, and a head, on the mean of each face; compiles quickly."""

    dropout: float = 0.0
    num_classes: int = 7
    frozen: tuple[tuple[str, ...], ...] = ()
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(4, name="trunk")(x.mean(axis=(1, 2)))
        x = BatchNorm(train and ("trunk_norm",) not in self.frozen, self.axis_name, name="trunk_norm")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.num_classes, name="head")(x)


class TrainingsWithin:
    """A replacement for `launch.Commands` that trains and runs commands in this process.

    Attributes:
      trained: run directory and config of each training.
    """

    def __init__(self, load_config: Callable[..., ConfigDict]):
        self.trained: list[tuple[pathlib.Path, ConfigDict]] = []
        self._load_config = load_config

    def train(self, training: launch.Training) -> int:
        config = self._load_config(training.config, training.flags)
        self.trained.append((training.workdir, config))
        try:
            train_and_evaluate(config, training.workdir)
        except Exception as error:
            if (reason := errors.explain(error, training.workdir)) is None:
                raise
            print(f"error: {reason}", file=sys.stderr)
            return 1
        return 0

    def run(self, python: str, flag: str, module: str, name: str, *arguments: str) -> tuple[int, None]:
        try:
            return script(name.replace("-", "_")).main(list(arguments)), None
        except SystemExit as end:
            return int(end.code or 0), None


def run_within(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, shrink: Callable[[ConfigDict], None], *arguments: Any
) -> tuple[int, TrainingsWithin]:
    """Runs a command and its trainings in this process.

    Args:
      monkeypatch: the test's fixture.
      module: module of the command.
      shrink: modifies a config to make the training small.
      *arguments: arguments of the command.

    Returns:
      The exit code and the trainings.
    """
    load = module.launch.load_config

    def load_small(*arguments: Any) -> ConfigDict:
        config = load(*arguments)
        shrink(config)
        return config

    commands = TrainingsWithin(load_small)
    with monkeypatch.context() as patch:
        patch.setattr(module.launch, "load_config", load_small)
        patch.setattr(module.launch, "Commands", lambda: commands)
        patch.setattr(sys, "argv", [f"fer-jax {module.__name__.split('.')[-1]}", *map(str, arguments)])
        return module.main(), commands


def without_tensorflow() -> dict[str, str]:
    """Returns environment variables that hide TensorFlow: processes start faster and write no event files."""
    paths = [str(ROOT / "tests" / "without_tensorflow"), environment()["PYTHONPATH"]]
    return {"PYTHONPATH": os.pathsep.join(paths)}


@contextlib.contextmanager
def forking(**env: str) -> Iterator[Callable[..., list[SimpleNamespace]]]:
    """Starts forked.py; yields call(function, *lists of arguments, devices=1) -> a process for each list.

    A process has `returncode`, `stdout` and `stderr`.
    """
    how: dict[str, Any] = {"env": environment(**without_tensorflow(), **env), "text": True, "cwd": ROOT}
    how |= {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, ROOT / "tests" / "forked.py"], **how) as server:

        def call(function: str, *lists: Iterable[Any], devices: int = 1) -> list[SimpleNamespace]:
            asked = [devices, function, [[str(word) for word in arguments] for arguments in lists]]
            print(json.dumps(asked), file=server.stdin, flush=True)
            ended = json.loads(server.stdout.readline())
            return [SimpleNamespace(returncode=code, stdout=out, stderr=err) for code, out, err in ended]

        yield call
        server.stdin.close()


def raw_state(workdir: pathlib.Path, step: int) -> dict[str, Any]:
    """Returns the state in a checkpoint, read with Orbax."""
    path = pathlib.Path(workdir, "checkpoints", str(step), "state").absolute()
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        return reader.restore(path)


def records(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the records of metrics.jsonl without timings."""
    return [
        {key: value for key, value in record.items() if key not in TIMES} for record in read_records(workdir)
    ]


def assert_trees_equal(left: Any, right: Any) -> None:
    """Checks that two trees have the same structure and bitwise equal leaves."""
    assert_trees_close(left, right, rtol=0, atol=0)


def assert_trees_close(left: Any, right: Any, **tolerance: float) -> None:
    """Checks that two trees have the same structure, dtypes, and shapes, and close leaves."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    leaves = jax.tree_util.tree_leaves_with_path(left)
    for (path, a), b in zip(leaves, jax.tree.leaves(right), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        np.testing.assert_allclose(a, b, err_msg=jax.tree_util.keystr(path), **tolerance)


def assert_same_run(left: pathlib.Path, right: pathlib.Path, step: int) -> None:
    """Checks that two run directories have bitwise the same run up to `step`."""
    assert_trees_equal(raw_state(left, step), raw_state(right, step))
    assert records(left) == records(right)
    for name in ("best.safetensors", "last.safetensors"):
        assert (left / name).read_bytes() == (right / name).read_bytes(), name
    reports = [json.loads((path / "report" / "report.json").read_text()) for path in (left, right)]
    for report in reports:
        report.pop("checkpoint")  # its path
    assert reports[0] == reports[1]


def random_case(seed, count=500, classes=7, absent=()):
    """Returns probabilities with an accuracy of about one half, and labels without the absent classes."""
    rng = np.random.default_rng(seed)
    present = [c for c in range(classes) if c not in absent]
    labels = rng.choice(present, count)
    logits = rng.normal(size=(count, classes)) + 2 * np.eye(classes)[labels] * rng.random((count, 1))
    probs = np.exp(2 * logits)
    return probs / probs.sum(axis=1, keepdims=True), labels


HOW = {"mean": 0.5, "std": 0.25, "channels": 1, "fill": "reflect", "interpolation": "bilinear"}


def metadata_of(
    kwargs: dict[str, Any], size: int, data_dir: pathlib.Path | None = None, **changes: Any
) -> dict[str, Any]:
    """Returns the metadata of a run with a `cnn_relu`, optionally trained on a dataset."""
    manifest = read.read_manifest(data_dir) if data_dir else None
    return {
        "model": {"name": "cnn_relu", "kwargs": kwargs},
        "preprocess": {"image_size": size, **HOW},
        "emotions": list(EMOTIONS),
        "data": read.describe(manifest) if manifest else {"name": "none"},
        "data_hash": manifest["content_hash"] if manifest else "none",
        "selection": {"split": "validation", "metric": "accuracy", "value": 0.5, "step": 10},
    } | changes


def report_metadata(**changes: Any) -> dict[str, Any]:
    """Returns a report's metadata for a network that was selected on the evaluated validation split."""
    splits = {"train": {"hash": "t"}, "validation": {"hash": "v"}, "test": {"hash": "w"}}
    data = {"data": {"name": "faces", "splits": splits}, "data_hash": "a" * 64}
    return {
        **data,
        **{f"trained_{key}": value for key, value in data.items()},
        "model": {"name": "cnn_relu", "kwargs": {"widths": [8, 16]}},
        "config": {"data": {"dir": "/home/someone/data/fer2013"}, "seed": 3, "train": {"epochs": 2}},
        "seed": 3,
        "version": "0.1",
        "ema": True,
        "parameters": 2_000_000,
        "emotions": list(EMOTIONS),
        "selection": {"split": "validation", "metric": "accuracy", "value": 0.7, "step": 1200},
        "split": "validation",
        "tta": "none",
        "checkpoint": "/home/someone/runs/cnn/best.safetensors",
    } | changes


def build_dataset(
    folder: pathlib.Path, faces: dict[str, Iterable], channels: int = 1, **how: Any
) -> pathlib.Path:
    """Builds a dataset of faces, {split: (image, class) pairs}, from files in class folders."""
    source = folder.with_name(f"{folder.name}_images")
    for split, pairs in faces.items():
        for i, (image, name) in enumerate(pairs):
            path = source / split / name / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image[..., 0])
            if channels == 3:
                picture = Image.merge("RGB", [picture, picture, Image.new("L", picture.size)])
            picture.save(path)
    build.build(source, folder, **how)
    return folder


def named(images: Iterable, labels: Iterable[int]) -> list[tuple]:
    """Returns pairs (image, class) for `build_dataset`."""
    return [(image, EMOTIONS[label]) for image, label in zip(images, labels, strict=True)]


def rows_of(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of a table (.csv or .jsonl)."""
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        return list(csv.DictReader(file)) if path.suffix == ".csv" else [json.loads(line) for line in file]


def encode(image: Any, kind: str = "PNG", **options: Any) -> bytes:
    """Returns an encoded image, from a Pillow image or an array [H, W], [H, W, 1], or [H, W, 3]."""
    file = io.BytesIO()
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image)
    image.save(file, kind, **options)
    return file.getvalue()


def png_that_declares(width: int, height: int) -> bytes:
    """Returns a tiny PNG file that declares an image of this size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def save_empty(figure: Any, path: pathlib.Path, **kwargs: Any) -> None:
    """Writes an empty image; replaces `Figure.savefig`."""
    Image.new("L", (1, 1)).save(path)


def call(module: ModuleType, *arguments: Any) -> Any:
    """Runs the `main` of a program in this process; returns its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"fer-jax {module.__name__.split('.')[-1]}", *map(str, arguments)])
        try:
            return module.main()
        except SystemExit as end:
            return end.code


@contextlib.contextmanager
def plain_trainings() -> Iterator[None]:
    """Disables TensorBoard files and the figures of reports in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fer_jax.training.metric_writers._event_writer", lambda _: None)
        for name in ("report.draw_figures", "error_analysis.draw"):
            patch.setattr(f"fer_jax.evaluation.report.{name}", lambda *_: None)
        yield
