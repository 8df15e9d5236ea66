"""The benchmarks run, and their peers do the same work."""

import argparse
import functools
import io
import os
import tempfile
from contextlib import redirect_stdout

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import numpy as np
import pytest
from helpers import call, needed, program, run_python

from fer_jax import models
from fer_jax.models import backbone, cnn, layers
from fer_jax.training.monitoring import PreemptedError, StopSignal
from fer_jax.training.train import Run


@pytest.fixture
def benchmark():
    return program("benchmarks/models.py")


@pytest.mark.parametrize("name", ["cnn_elu", "cnn_relu", "cnn_residual"])
def test_peers_have_the_same_parameters(benchmark, name):
    """By the shapes of all, in any order."""
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


OF_FEW_FACES = """
import sys

sys.path.insert(0, "benchmarks")
import input as benchmark

assert benchmark.COUNT and benchmark.WARM_UP and benchmark.ROUNDS
benchmark.COUNT, benchmark.WARM_UP, benchmark.ROUNDS = 256, 1, 1
sys.exit(benchmark.main())
"""


def test_the_input_benchmark_compares_its_streams():
    process = run_python("-c", OF_FEW_FACES, "--seconds=0.02")
    assert process.returncode in (0, 1), process.stderr
    assert "tf.data" in process.stdout and "bar (over 50,000 faces/s per core" in process.stdout
    assert process.returncode == ("MISSED" in process.stdout)


def restore_layers(monkeypatch):
    """Restores fer_jax's layers after the test."""
    for module, attribute in ((layers, "convolve"), (backbone, "BatchNorm"), (cnn, "BatchNorm")):
        monkeypatch.setattr(module, attribute, getattr(module, attribute))


def test_stock_layers_make_the_same_network(benchmark, monkeypatch):
    """In training mode; each layer's rounding (1e-5) adds up over the depth. Gradients: tests/models."""
    images, _ = benchmark.random_batch("efficientnet_b0", 4, 32)
    model = models.create("efficientnet_b0", width=0.2, depth=0.1, dropout=0.0)
    rng = np.random.default_rng(0)

    def random(leaf):
        values = rng.normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
        return (values if len(leaf.shape) > 1 else rng.uniform(0.5, 1.5, leaf.shape)).astype(np.float32)

    variables = jax.tree.map(random, jax.eval_shape(model.init, jax.random.key(0), images))

    def logits():
        return jax.jit(lambda v: model.apply(v, images, train=True, mutable=["batch_stats"])[0])(variables)

    ours = logits()
    restore_layers(monkeypatch)
    own = layers.convolve, backbone.BatchNorm
    benchmark.use_stock_layers()
    assert layers.convolve is not own[0] and backbone.BatchNorm is not own[1]
    np.testing.assert_allclose(ours, logits(), rtol=0, atol=1e-3 * np.abs(ours).max())


@pytest.mark.parametrize("side", ["fer_jax", "stock Flax", "PyTorch"])
def test_a_side_trains_and_infers(benchmark, side, monkeypatch):
    """At toy size: the loss decreases, and the outputs are probabilities."""
    if side == "PyTorch":
        needed("torch", "originals")
    small = {"widths": (8, 8), "blocks": (1, 1), "squeeze": 2, "dropout": 0.0}
    monkeypatch.setitem(benchmark.KWARGS, "cnn_residual", small)
    monkeypatch.setattr(benchmark, "LEARNING_RATE", 0.05)
    if side == "stock Flax":
        restore_layers(monkeypatch)
    options = argparse.Namespace(models=["cnn_residual"], batch_size=4, size=8, dtype="float32")
    work = benchmark.work(side, options)
    losses_of_steps = [work["train"]() for _ in range(10)]
    assert all(np.isfinite(losses_of_steps)) and losses_of_steps[-1] < 0.8 * losses_of_steps[0]
    probs = work["infer"]()
    assert isinstance(probs, np.ndarray) and probs.shape == (4, 7)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    assert benchmark.device_of(side).split()[0] in ("cpu", "gpu")


def test_the_tensorflow_side_trains_and_infers():
    """In its own process, because Keras has one backend; no turn is requested."""
    for module in ("keras", "tensorflow"):
        needed(module, "test")
    side = "--side=TensorFlow", "--models=cnn_elu", "--size=8", "--batch_size=2"
    process = run_python("benchmarks/models.py", *side)
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
    ("devices", "ratio", "refused", "words"),
    [
        (("gpu A", "gpu A", "gpu A"), "0.40", [], "missed at 0.40 of the faster of TensorFlow, PyTorch"),
        (("gpu A", "cpu", "gpu A"), "0.80", ["TensorFlow"], "missed at 0.80 of the faster of PyTorch"),
        (("cpu", "gpu A", "gpu A"), "", ["TensorFlow", "PyTorch"], "not judged: no peer on that kind of"),
    ],
)
def test_only_sides_on_one_kind_of_device_are_compared(
    benchmark, devices, ratio, refused, words, monkeypatch, capsys
):
    devices = dict(zip(SECONDS, devices, strict=True))
    monkeypatch.setattr(benchmark, "Side", functools.partial(FakeSide, devices))
    monkeypatch.setattr(benchmark, "missing", lambda side: [])
    assert call(benchmark, "--models", "vgg16", "--sides", *SECONDS, "--batch_size", "2") == 1
    out = capsys.readouterr().out
    assert f"| vgg16, train | 4 |  | 10 | 5 | {ratio} |" in out and f"vgg16: bar {words}" in out
    assert "; ".join(f"{name} on {device}" for name, device in devices.items()) in out
    for name in ("TensorFlow", "PyTorch"):
        line = f"no verdict against {name}: it ran on {devices[name]} and fer_jax on {devices['fer_jax']}"
        assert (line in out) == (name in refused)


def test_a_side_that_is_not_installed_is_left_out(benchmark, monkeypatch, capsys):
    """And the bar is met by the other."""
    found = benchmark.importlib.util.find_spec
    monkeypatch.setattr(
        benchmark.importlib.util, "find_spec", lambda name: None if name == "torch" else found(name)
    )
    devices = dict.fromkeys(SECONDS, "cpu")
    monkeypatch.setitem(SECONDS, "TensorFlow", 0.6)
    monkeypatch.setattr(benchmark, "Side", functools.partial(FakeSide, devices))
    assert call(benchmark, "--models", "vgg16", "--sides", *SECONDS) == 0
    out = capsys.readouterr().out
    assert "PyTorch left out, not installed: torch" in out
    assert "vgg16: bar met at 1.20 of the faster of TensorFlow\n" in out


SMALL = ("--config.model.kwargs.widths=(4,)", "--config.model.kwargs.depths=(1,)")
SMALL += ("--config.train.batch_size=14", "--config.model.input_size=16", "--config.optim.warmup_epochs=0")


class AskedWithin:
    """Replaces `launch.Commands`: the benchmark's own processes run in this one."""

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


def test_a_stopped_training_is_closed_before_its_folder_is_removed(tiny_data, tmp_path, monkeypatch):
    """Its checkpoint is written in the background, into that folder."""
    benchmark = program("benchmarks/time_to_accuracy.py")
    options = argparse.Namespace(config="ablation", data=tiny_data, image_size=None, seeds=[0], started=1.0)
    options.arguments = [*SMALL, "--config.train.epochs=2"]
    folders = []

    def close(self):
        folders.append((self.workdir, self.workdir.is_dir()))
        closed(self)

    closed = Run.close
    monkeypatch.setattr(Run, "close", close)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(StopSignal, "received", True)
    with pytest.raises(PreemptedError):
        benchmark.train(options)
    assert [there for _, there in folders] == [True] and not any(tmp_path.iterdir())


@pytest.mark.parametrize("target, reached", [(0.70, True), (0.71, False)])
def test_a_target_is_reached_by_the_mean_over_the_seeds(target, reached):
    row = {"start": 10.0, "compilation": 20.0}
    rows = {0: row | {"accuracy": 0.69, "total": 50.0}, 1: row | {"accuracy": 0.72, "total": 70.0}}
    lines, found = program("benchmarks/time_to_accuracy.py").table(rows, target)
    assert found is reached and lines[-3] == "| mean | 70.50 | 60.0 | 10.0 | 20.0 | 30.0 |"
    word = "reached" if reached else "missed"
    assert lines[-1].startswith(f"{100 * target:g} % {word}: 70.50 % ± 2.12 in 60 s, 30 s without start and ")
    assert lines[-1].endswith("reached by 1 of 2 seeds")


@pytest.mark.parametrize(
    "flags, message",
    [
        (("--target=0.5", "--", "--config.distill.teachers=('cnn',)"), "config.distill.teachers is ('cnn',)"),
        (("--target=70",), "expected a share"),
    ],
)
def test_other_trainings_are_refused(flags, message, capsys):
    assert call(program("benchmarks/time_to_accuracy.py"), *flags) == 2
    assert message in capsys.readouterr().err
