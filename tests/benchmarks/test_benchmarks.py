"""Tests that the benchmarks run on small inputs, and that their peers do the same work."""

import argparse
import functools
import io
import os
import re
from contextlib import redirect_stdout

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import numpy as np
import pytest
from helpers import call, needed, program, run_python

from fer_jax import models
from fer_jax.models import backbone, cnn, layers


@pytest.fixture
def benchmark():
    return program("benchmarks/models.py")


@pytest.mark.parametrize("name", ["cnn_elu", "cnn_relu", "cnn_residual"])
def test_peers_have_the_same_parameters(benchmark, name):
    """Compares the shapes of all parameters, in any order."""
    images, targets = benchmark.random_batch(name, 2, 48)
    assert images.shape == (2, 48, 48, 1) and np.array_equal(targets.sum(axis=1), [1, 1])
    expected = models.create(name, **benchmark.KWARGS.get(name, {}))
    params = jax.eval_shape(expected.init, jax.random.key(0), images)["params"]
    ours = [leaf.shape for leaf in jax.tree.leaves(params)]
    if name == "cnn_residual":
        needed("torch", "originals")
        theirs = [leaf.shape for leaf in benchmark.torch_network(name, cuda=False).parameters()]
        assert sorted(map(sorted, ours)) == sorted(map(sorted, theirs))
        return
    network = benchmark.keras_network(name, 48)
    assert sorted(ours) == sorted(tuple(weight.shape) for weight in network.trainable_weights)
    rates = [layer.rate for layer in network.layers if hasattr(layer, "rate")]
    own = [expected.dropout] * 2 if name == "cnn_relu" else [*expected.block_dropout, expected.dropout]
    assert rates == own


def test_the_input_benchmark_compares_its_streams(monkeypatch, capsys):
    benchmark = program("benchmarks/input.py")
    for name, value in (("COUNT", 256), ("WARM_UP", 1), ("ROUNDS", 1)):
        monkeypatch.setattr(benchmark, name, value)
    code, printed = call(benchmark, "--seconds=0.02"), capsys.readouterr().out
    assert "tf.data" in printed and "goal (over 50,000 faces/s per core" in printed
    assert code == ("MISSED" in printed)


@pytest.mark.parametrize("sides", [("fer_jax", "stock Flax"), ("PyTorch",)])
def test_a_side_trains_and_infers(benchmark, sides, monkeypatch):
    """The loss decreases, outputs are probabilities, and stock layers give the same network."""
    if "PyTorch" in sides:
        needed("torch", "originals")
    small = {"widths": (8, 8), "blocks": (1, 1), "squeeze": 2, "dropout": 0.0}
    monkeypatch.setitem(benchmark.KWARGS, "cnn_residual", small)
    monkeypatch.setattr(benchmark, "LEARNING_RATE", 0.05)
    own = [(layers, "convolve"), (backbone, "BatchNorm"), (cnn, "BatchNorm")]
    own = [(*place, getattr(*place)) for place in own]
    for place in own:  # restored by monkeypatch
        monkeypatch.setattr(*place)
    options = argparse.Namespace(models=["cnn_residual"], batch_size=4, size=8, dtype="float32")
    starts = []
    for side in sides:
        work = benchmark.work(side, options)
        assert all((getattr(*place[:2]) is place[2]) == (side != "stock Flax") for place in own)
        losses_of_steps = [work["train"]() for _ in range(10)]
        assert all(np.isfinite(losses_of_steps)) and losses_of_steps[-1] < 0.8 * losses_of_steps[0]
        starts.append(losses_of_steps[:2])  # with the initial weights, and after an update
        probs = work["infer"]()
        assert isinstance(probs, np.ndarray) and probs.shape == (4, 7)
        np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
        assert benchmark.device_of(side).split()[0] in ("cpu", "gpu")
    np.testing.assert_allclose(starts[-1], starts[0], rtol=1e-4)


@pytest.mark.originals
def test_the_tensorflow_side_trains_and_infers():
    """Runs in its own process, because Keras has one backend per process; requests no turns."""
    for module in ("keras", "tensorflow"):
        needed(module, "test")
    process = run_python("benchmarks/models.py", "--side=TensorFlow", "--models=cnn_elu", "--size=8")
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stdout.splitlines()[-1].startswith(("serving cpu", "serving gpu"))


SECONDS = {"fer_jax": 0.5, "TensorFlow": 0.2, "PyTorch": 0.4}


class FakeSide:
    """A side of a benchmark without a process."""

    def __init__(self, devices, arguments):
        self._name = arguments[arguments.index("--side") + 1]
        self.device = devices[self._name]
        self.kind = self.device.split()[0]

    def run(self, action, count):
        return [SECONDS[self._name]] * count

    def close(self):
        pass


@pytest.mark.parametrize(
    ("devices", "seconds", "words"),
    [
        (("gpu A", "gpu A", "gpu A"), 0.2, "missed at 0.40 of the faster of TensorFlow, PyTorch\n"),
        (("gpu A", "cpu", "gpu A"), 0.2, "missed at 0.80 of the faster of PyTorch\n"),
        (("cpu", "gpu A", "gpu A"), 0.2, "not judged: no peer on that kind of"),
        (("cpu", "cpu", None), 0.6, "met at 1.20 of the faster of TensorFlow\n"),
    ],
)
def test_only_sides_on_one_kind_of_device_are_compared(
    benchmark, devices, seconds, words, monkeypatch, capsys
):
    """Sides that are not installed are skipped."""
    devices = dict(zip(SECONDS, devices, strict=True))
    monkeypatch.setitem(SECONDS, "TensorFlow", seconds)
    monkeypatch.setattr(benchmark, "Side", functools.partial(FakeSide, devices))
    installed = lambda name: name != "torch" or devices["PyTorch"]  # noqa: E731
    monkeypatch.setattr(benchmark.importlib.util, "find_spec", lambda name: installed(name) or None)
    flags = ("--models", "vgg16", "--sides", *SECONDS, "--batch_size", "2")
    assert call(benchmark, *flags) == (not words.startswith("met"))
    out = capsys.readouterr().out
    ratio = words.split()[2] if " at " in words else ""
    assert f"vgg16: goal {words}" in out
    assert re.search(
        rf"^\| vgg16, train \| 4 \|  \| {2 / seconds:.0f} \| 5? \| {ratio} \|$", out, re.MULTILINE
    )
    assert ("PyTorch skipped, not installed: torch\n" in out) == (devices["PyTorch"] is None)
    for name in ("TensorFlow", "PyTorch"):
        line = f"no verdict against {name}: it ran on {devices[name]} and fer_jax on {devices['fer_jax']}"
        assert (line in out) == (devices[name] not in (None, devices["fer_jax"]))


SMALL = ("--config.model.kwargs.widths=(4,)", "--config.model.kwargs.depths=(1,)")
SMALL += ("--config.train.batch_size=14", "--config.model.input_size=16", "--config.optim.warmup_epochs=0")


class AskedWithin:
    """A replacement for `launch.Commands` that runs the benchmark's child processes in this process."""

    def run(self, python, path, *arguments, env, stdout):
        assert env["JAX_ENABLE_COMPILATION_CACHE"] == "false"
        with redirect_stdout(io.StringIO()) as printed:
            code = call(program(path), *arguments)
        return code, printed.getvalue()


def test_time_to_accuracy_is_that_of_the_evaluation_at_the_end(tiny_data, monkeypatch, capsys):
    flags = (f"--data={tiny_data}", "--target=1", "--seeds", "3", "--", *SMALL, "--config.train.epochs=1")
    benchmark = program("benchmarks/time_to_accuracy.py")
    monkeypatch.setattr(benchmark.launch, "Commands", AskedWithin)
    assert call(benchmark, *flags) == 1
    printed = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ")]
    assert [row[0].strip() for row in rows] == ["seed", "---", "3", "mean"]
    accuracy, total, start, compilation, rest = (float(cell) for cell in rows[2][1:])
    right = 28 * accuracy / 100
    assert 0 <= accuracy <= 100 and right == pytest.approx(round(right), abs=0.15)
    assert total == pytest.approx(start + compilation + rest, abs=0.2) and min(start, compilation) > 0
    assert "Accuracy on `validation` by given labels." in printed
    assert "100 % missed" in printed and "reached by 0 of 1 seed" in printed
    taught = "--config.distill.teachers=('cnn_64',)"
    assert call(benchmark, "--target=70") == call(benchmark, "--target=0.5", "--", taught) == 2
    refused = capsys.readouterr().err
    assert "'70': expected float" in refused and "config.distill.teachers is ('cnn_64',)" in refused


@pytest.mark.parametrize("target, reached", [(0.70, True), (0.71, False)])
def test_a_target_is_reached_by_the_mean_over_the_seeds(target, reached):
    row = {"start": 10.0, "compilation": 20.0}
    rows = {0: row | {"accuracy": 0.69, "total": 50.0}, 1: row | {"accuracy": 0.72, "total": 70.0}}
    lines, found = program("benchmarks/time_to_accuracy.py").table(rows, target)
    assert found is reached and lines[-3] == "| mean | 70.50 | 60.0 | 10.0 | 20.0 | 30.0 |"
    word = "reached" if reached else "missed"
    assert lines[-1].startswith(f"{100 * target:g} % {word}: 70.50 % ± 2.12 in 60 s, 30 s without start and ")
    assert lines[-1].endswith("reached by 1 of 2 seeds")
