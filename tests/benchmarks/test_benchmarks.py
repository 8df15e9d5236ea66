"""The benchmarks measure what they say: the same network, the same work."""

import argparse
import functools
import io
import os
import sys
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


@pytest.mark.parametrize("name", ["cnn_elu", "cnn_relu"])
def test_keras_steps_the_same_network(name):
    benchmark = program("benchmarks/models.py")
    images, targets = benchmark.random_batch(name, 2, 48)
    assert images.shape == (2, 48, 48, 1) and np.array_equal(targets.sum(axis=1), [1, 1])
    variables = jax.eval_shape(models.create(name).init, jax.random.key(0), images)
    ours = sorted(leaf.shape for leaf in jax.tree.leaves(variables["params"]))
    network = benchmark.keras_network(name, 48)
    assert ours == sorted(tuple(weight.shape) for weight in network.trainable_weights)
    rates = [layer.rate for layer in network.layers if hasattr(layer, "rate")]
    expected = models.create(name)
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


def keep_layers(monkeypatch):
    """Puts fer_jax's layers back after the test."""
    for module, attribute in (
        (layers, "convolve"),
        (layers, "convolve_depthwise"),
        (backbone, "BatchNorm"),
        (cnn, "BatchNorm"),
    ):
        monkeypatch.setattr(module, attribute, getattr(module, attribute))


def test_stock_layers_make_the_same_network(monkeypatch):
    """In training mode; each layer's rounding (1e-5) adds up over the depth. Gradients: tests/models."""
    benchmark = program("benchmarks/models.py")
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
    keep_layers(monkeypatch)
    own = layers.convolve, backbone.BatchNorm
    benchmark.use_stock_layers()
    assert layers.convolve is not own[0] and backbone.BatchNorm is not own[1]
    np.testing.assert_allclose(ours, logits(), rtol=0, atol=1e-3 * np.abs(ours).max())


def test_torch_steps_the_same_residual_network():
    """The same logits from the same random weights, layer by layer in the order of both."""
    torch = needed("torch", "originals")
    benchmark = program("benchmarks/models.py")
    kwargs = benchmark.KWARGS["cnn_residual"] | {"widths": (4, 8), "blocks": (1, 2), "squeeze": 2}
    theirs = benchmark.torch_residual(**kwargs).eval()
    model = models.create("cnn_residual", **kwargs)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 8, 8, 1)).astype(np.float32)
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0.1, 1, leaf.shape).astype(np.float32) - 0.4,
        jax.eval_shape(model.init, jax.random.key(0), images),
    )
    params, stats = variables["params"], variables["batch_stats"]
    stats = {name: {"mean": norm["mean"], "var": norm["var"] + 0.5} for name, norm in stats.items()}
    counts = {"Conv": 0, "BatchNorm": 0, "SqueezeExcite": 0}

    def following(kind):
        counts[kind] += 1
        return f"{kind}_{counts[kind] - 1}"

    def put(parameter, value):
        parameter.data = torch.from_numpy(np.ascontiguousarray(value))

    gate = None
    for layer in theirs.modules():
        if isinstance(layer, torch.nn.Conv2d):
            put(layer.weight, params[following("Conv")]["kernel"].transpose(3, 2, 0, 1))
        elif isinstance(layer, torch.nn.BatchNorm2d):
            name = following("BatchNorm")
            put(layer.weight, params[name]["scale"])
            put(layer.bias, params[name]["bias"])
            layer.running_mean = torch.from_numpy(stats[name]["mean"])
            layer.running_var = torch.from_numpy(stats[name]["var"])
        elif isinstance(layer, torch.nn.Linear):
            if layer is theirs[-1]:
                dense = params["head"]
            elif gate is None:
                gate = params[following("SqueezeExcite")]
                dense = gate["reduce"]
            else:
                dense, gate = gate["expand"], None
            put(layer.weight, dense["kernel"].T)
            put(layer.bias, dense["bias"])
    with torch.no_grad():
        logits = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    ours = model.apply({"params": params, "batch_stats": stats}, images)
    np.testing.assert_allclose(ours, logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["fer_jax", "stock Flax", "PyTorch"])
def test_a_side_trains_and_infers(side, monkeypatch):
    """At toy size: the same loss at the start of what learns, and probabilities."""
    if side == "PyTorch":
        needed("torch", "originals")
    benchmark = program("benchmarks/models.py")
    small = {"widths": (8, 8), "blocks": (1, 1), "squeeze": 2, "dropout": 0.0}
    monkeypatch.setitem(benchmark.KWARGS, "cnn_residual", small)
    monkeypatch.setattr(benchmark, "LEARNING_RATE", 0.05)
    if side == "stock Flax":
        keep_layers(monkeypatch)
    options = argparse.Namespace(models=["cnn_residual"], batch_size=4, size=8, dtype="float32")
    work = benchmark.work(side, options)
    losses_of_steps = [work["train"]() for _ in range(10)]
    assert all(np.isfinite(losses_of_steps)) and losses_of_steps[-1] < 0.8 * losses_of_steps[0]
    probs = work["infer"]()
    assert isinstance(probs, np.ndarray) and probs.shape == (4, 7)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-5)
    assert benchmark.device_of(side).split()[0] in ("cpu", "gpu")


def test_the_tensorflow_side_trains_and_infers():
    """In a process of its own, for Keras has one backend; no turn is asked for."""
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
        (("gpu A", "gpu A", "gpu A"), "0.40", [], "the faster of TensorFlow and PyTorch): missed at 0.40"),
        (("gpu A", "cpu", "gpu A"), "0.80", ["TensorFlow"], "of PyTorch alone): missed at 0.80"),
        (("cpu", "gpu A", "gpu A"), "", ["TensorFlow", "PyTorch"], "bar not judged, for neither"),
        (("gpu A", "cpu", "cpu"), "", ["TensorFlow", "PyTorch"], "bar not judged, for neither"),
    ],
)
def test_there_is_no_verdict_between_kinds_of_devices(devices, ratio, refused, words, monkeypatch, capsys):
    benchmark = program("benchmarks/models.py")
    devices = dict(zip(SECONDS, devices, strict=True))
    monkeypatch.setattr(benchmark, "Side", functools.partial(FakeSide, devices))
    monkeypatch.setattr(benchmark, "missing", lambda side: [])
    flags = ["--models", "vgg16", "--sides", *SECONDS, "--batch_size", "2"]
    monkeypatch.setattr(sys, "argv", [benchmark.__file__, *flags])
    assert benchmark.main() == 1
    out = capsys.readouterr().out
    assert f"| vgg16, train | 4 |  | 10 | 5 | {ratio} |" in out
    assert "; ".join(f"{name} on {device}" for name, device in devices.items()) in out
    for name in ("TensorFlow", "PyTorch"):
        line = f"no verdict against {name}: it ran on {devices[name]} and fer_jax on {devices['fer_jax']}"
        assert (line in out) == (name in refused)
    assert words in out


@pytest.mark.parametrize(
    ("ratios", "peers", "words", "met"),
    [
        (
            {"vgg16": 1.51, "mobilenet_v2": 1.2},
            {"vgg16": ["TensorFlow", "PyTorch"], "mobilenet_v2": ["TensorFlow", "PyTorch"]},
            "bar (1.00 or more of the faster of TensorFlow and PyTorch): met at 1.20: vgg16, mobilenet_v2",
            True,
        ),
        (
            {"vgg16": 1.5, "resnet18": 0.97},
            {"vgg16": ["TensorFlow", "PyTorch"], "resnet18": ["PyTorch"]},
            "bar (1.00 or more of the faster of TensorFlow and PyTorch): met at 1.50: vgg16\n"
            "bar (1.00 or more of PyTorch alone): missed at 0.97: resnet18",
            False,
        ),
        (
            {"vgg16": 1.5, "resnet18": None},
            {"vgg16": ["TensorFlow"], "resnet18": []},
            "bar (1.00 or more of TensorFlow alone): met at 1.50: vgg16\n"
            "bar not judged, for neither TensorFlow nor PyTorch took part on fer_jax's kind of device: "
            "resnet18",
            False,
        ),
    ],
)
def test_the_verdict_names_whom_it_compares_with(ratios, peers, words, met):
    assert program("benchmarks/models.py").verdict(ratios, peers) == (words, met)


def test_a_side_that_is_not_installed_is_named(monkeypatch):
    benchmark = program("benchmarks/models.py")
    found = benchmark.importlib.util.find_spec
    monkeypatch.setattr(
        benchmark.importlib.util, "find_spec", lambda name: None if name == "torch" else found(name)
    )
    assert "torch" in benchmark.missing("PyTorch")
    options = argparse.Namespace(sides=["fer_jax", "TensorFlow", "PyTorch"])
    assert "PyTorch" not in benchmark.sides_of("vgg16", options)
    assert benchmark.sides_of("resnet18", options) == ["fer_jax"]


class AskedWithin:
    """In the place of `trainings.Commands`: the benchmark's own processes run in this one."""

    def ask(self, python, path, *arguments, env):
        assert (python, env["JAX_ENABLE_COMPILATION_CACHE"]) == (sys.executable, "false")
        assert path.endswith("benchmarks/time_to_accuracy.py")
        with redirect_stdout(io.StringIO()) as printed:
            code = call(program("benchmarks/time_to_accuracy.py"), *arguments)
        return code, printed.getvalue()


def test_time_to_accuracy_is_of_the_evaluation_at_the_recipes_end(tiny_data, monkeypatch, capsys):
    small = ("--config.model.kwargs.widths=(4,)", "--config.model.kwargs.depths=(1,)")
    small += ("--config.train.batch_size=14", "--config.train.epochs=1", "--config.model.input_size=16")
    small += ("--config.optim.warmup_epochs=0",)
    flags = (f"--data={tiny_data}", "--target=1", "--seeds", "3", "--", *small)
    benchmark = program("benchmarks/time_to_accuracy.py")
    monkeypatch.setattr(benchmark.trainings, "Commands", AskedWithin)
    assert call(benchmark, *flags) == 1
    printed = capsys.readouterr().out
    rows = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("| ")]
    assert [row[0].strip() for row in rows] == ["seed", "3", "mean"]
    accuracy, total, start, compilation, rest = (float(cell) for cell in rows[1][1:])
    right = 28 * accuracy / 100
    assert 0 <= accuracy <= 100 and right == pytest.approx(round(right), abs=0.15)
    assert total == pytest.approx(start + compilation + rest, abs=0.2) and min(start, compilation) > 0
    assert "Accuracy on `validation` by given labels." in printed
    assert "100 % missed" in printed and "reached by 0 of 1 seed" in printed


def test_a_stopped_training_is_closed_before_its_folder_goes(tiny_data, tmp_path, monkeypatch):
    """Its checkpoint is written behind the scenes, into that folder."""
    benchmark = program("benchmarks/time_to_accuracy.py")
    small = ["--config.model.kwargs.widths=(4,)", "--config.model.kwargs.depths=(1,)"]
    small += ["--config.train.batch_size=14", "--config.train.epochs=2", "--config.model.input_size=16"]
    options = argparse.Namespace(
        config="configs/ablation.py", data=tiny_data, image_size=None, seeds=[0], started=1.0, arguments=small
    )
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
def test_a_target_is_reached_by_the_mean_of_the_seeds(target, reached):
    def row(accuracy, total):
        return {"accuracy": accuracy, "total": total, "start": 10.0, "compilation": 20.0}

    lines, found = program("benchmarks/time_to_accuracy.py").table(
        {0: row(0.69, 50.0), 1: row(0.72, 70.0)}, target
    )
    assert found is reached
    assert [cell.strip() for cell in lines[-3].split("|")[1:-1]] == [
        "mean",
        "70.50",
        "60.0",
        "10.0",
        "20.0",
        "30.0",
    ]
    words = "reached" if reached else "missed"
    assert lines[-1] == (
        f"{100 * target:g} % {words}: 70.50 % ± 2.12 in 60 s, 30 s without start and compilation; "
        "reached by 1 of 2 seeds"
    )


def test_the_time_is_of_trainings_from_random_weights(capsys):
    flags = ("--target=0.5", "--", "--config.distill.teachers=('cnn',)")
    assert call(program("benchmarks/time_to_accuracy.py"), *flags) == 2
    assert "config.distill.teachers is ('cnn',)" in capsys.readouterr().err


def test_a_target_is_a_share(capsys):
    assert call(program("benchmarks/time_to_accuracy.py"), "--target=70") == 2
    assert "expected a share" in capsys.readouterr().err
