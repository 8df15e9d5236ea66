"""Fixtures shared by all tests."""

import collections
import csv
import os
import pathlib
import resource

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import QUICK_COMPILATION, Linear
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fer_jax import models
from fer_jax.data import ferplus
from fer_jax.data.dataset import build
from fer_jax.data.sources import synthetic
from fer_jax.pretrained import registry, weights_file

MOST_MEMORY = 3 * 2**20  # KiB of memory above which a worker clears its compiled programs after each module
SAVE, DRAW = Figure.savefig, FigureCanvasAgg.draw
FERPLUS_NAMES = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")


def pytest_configure(config):
    jax.config.update("jax_disable_most_optimizations", True)  # see `_compiled_quickly`
    if QUICK_COMPILATION not in (flags := os.environ.get("XLA_FLAGS", "")):  # inherited by workers
        os.environ["XLA_FLAGS"] = f"{QUICK_COMPILATION} {flags}"


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    """Prints which tests were not run, why, and how to run them."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = collections.Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    chosen = config.option.markexpr
    apart = [line for line in config.getini("markers") if f"not {line.split(':')[0]}" in chosen]
    if reasons or apart:
        terminalreporter.section("not run")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"{count} skipped: {reason}")
    for line in apart:
        terminalreporter.write_line(f"left out: {line}")


@pytest.fixture(scope="session", autouse=True)
def _children_compile_once(tmp_path_factory):
    """Makes child processes share compiled programs and built files."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
        patch.setenv("FER_JAX_CACHE", str(folder / "cache"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _state_of_its_own(tmp_path_factory):
    """Keeps tests from writing to the user's home directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FER_JAX_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def forked(_children_compile_once, _state_of_its_own):
    """Runs programs in forks of a process that has imported everything, see `helpers.forking`."""
    with helpers.forking() as call:
        yield call


@pytest.fixture(scope="module")
def linear_network():
    """Registers a network "linear", for trainings whose network does not matter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(models.MODELS, "linear", Linear)
        yield


@pytest.fixture(scope="module")
def plain_trainings():
    """Disables TensorBoard files and the figures of reports."""
    with helpers.plain_trainings():
        yield


@pytest.fixture(scope="module", autouse=True)
def _compiled_quickly(request):
    """Compiles without most of XLA's optimizations, except in modules marked `optimized`."""
    optimized = request.node.get_closest_marker("optimized") is not None
    if optimized:
        jax.clear_caches()  # otherwise compiled programs would be reused
        jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
    if optimized or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > MOST_MEMORY:
        jax.clear_caches()


@pytest.fixture(scope="module", autouse=True)
def _undrawn(request):
    """Writes figures as empty images, except in tests marked `drawn`."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("drawn") is None:
            patch.setattr(Figure, "savefig", helpers.save_empty)
            patch.setattr(FigureCanvasAgg, "draw", FigureCanvasAgg.get_renderer)
        yield


@pytest.fixture(autouse=True)
def _drawn(request, monkeypatch):
    """Draws figures in tests marked `drawn`."""
    if request.node.get_closest_marker("drawn"):
        monkeypatch.setattr(Figure, "savefig", SAVE)
        monkeypatch.setattr(FigureCanvasAgg, "draw", DRAW)


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
    """Returns the folder with the real FER2013 next to the checkout; skips the test without it."""
    path = pathlib.Path(__file__).resolve().parents[2] / "shared"
    if not (path / "fer2013" / "unpack.py").is_file():
        pytest.skip("needs ../shared with the real FER2013")
    return path


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> pathlib.Path:
    """Returns a dataset prepared from a small fer2013.csv: 70 training, 28 validation, and 14 test faces."""
    return _build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_ferplus(tmp_path_factory) -> pathlib.Path:
    """Returns `tiny_data` with FER+ votes: 6 for the label, 2 for surprise (or fear), and 2 for unknown.

    Every second neutral face has votes for contempt instead: 5 training, 2 validation, and 1 test face.
    """
    return _build(tmp_path_factory.mktemp("tiny_ferplus"), votes=True)


def _build(folder: pathlib.Path, votes: bool = False) -> pathlib.Path:
    usages = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}
    rows, voted = ["emotion,pixels,Usage"], [["Usage", "Image name", *ferplus.COLUMNS]]
    for (split, usage), per_class in zip(usages.items(), (10, 4, 2), strict=True):
        images, labels = synthetic.generate(per_class, seed=0, split=split)
        for image, label in zip(images, labels, strict=True):
            rows.append(f"{label},{' '.join(map(str, np.ravel(image)))},{usage}")
            column = "contempt" if label == 6 and len(rows) % 2 else FERPLUS_NAMES[label]
            counts = {column: 6, "fear" if column == "surprise" else "surprise": 2, "unknown": 2}
            name = f"fer{len(rows) - 2:07d}.png"
            voted.append([usage, name, *(counts.get(column, 0) for column in ferplus.COLUMNS)])
    (folder / "fer2013.csv").write_text("\n".join(rows) + "\n")
    with open(folder / "fer2013new.csv", "w", newline="") as file:
        csv.writer(file).writerows(voted)
    ferplus_csv = folder / "fer2013new.csv" if votes else None
    build.build(folder / "fer2013.csv", folder / "data", ferplus_csv=ferplus_csv)
    return folder / "data"


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_data) -> pathlib.Path:
    """Returns a run directory with the best weights of a tiny, almost untrained network."""
    folder = tmp_path_factory.mktemp("tiny_run")
    kwargs = {"widths": (4, 8), "hidden": 8}
    model = models.create("cnn_relu", **kwargs)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 48, 48, 1)))
    # A new network predicts nearly uniform probabilities; this spreads them.
    variables["params"]["Dense_1"]["kernel"] *= 20
    facts = helpers.metadata_of(kwargs, 48, tiny_data)
    weights_file.export_weights(folder / weights_file.BEST_WEIGHTS, variables, facts)
    return folder


@pytest.fixture
def bundle(monkeypatch, tmp_path):
    """Returns a function that makes weights the only bundled network, by a link in a temporary folder."""

    def link(name: str, weights: pathlib.Path) -> None:
        (tmp_path / f"{name}_fer2013.safetensors").symlink_to(weights)
        monkeypatch.setattr(registry, "FOLDER", tmp_path)
        monkeypatch.setattr(registry, "BUNDLED", (name,))

    return link
