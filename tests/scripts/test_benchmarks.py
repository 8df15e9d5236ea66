"""The benchmarks measure what they say: the same network, the same work."""

import importlib.util
import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import numpy as np
import pytest
from helpers import ROOT, run_python

from fer_jax import models


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cnn_elu", "cnn_relu"])
def test_keras_steps_the_same_network(name):
    benchmark = script("benchmark_step")
    images, targets = benchmark.random_batch(2)
    assert images.dtype == np.uint8 and np.array_equal(targets.sum(axis=1), [1, 1])
    variables = jax.eval_shape(models.create(name).init, jax.random.key(0), images / np.float32(255))
    ours = sorted(leaf.shape for leaf in jax.tree.leaves(variables["params"]))
    network = benchmark.keras_network(name)
    assert ours == sorted(tuple(weight.shape) for weight in network.trainable_weights)
    rates = [layer.rate for layer in network.layers if hasattr(layer, "rate")]
    expected = models.create(name)
    own = [expected.dropout] * 2 if name == "cnn_relu" else [*expected.block_dropout, expected.dropout]
    assert rates == own


def test_the_input_benchmark_compares_its_streams():
    process = run_python("scripts/benchmark_input.py", "--seconds=0.05", "--steps=0")
    assert process.returncode in (0, 1), process.stderr
    assert "tf.data" in process.stdout and "bars (over 50,000 faces/s per core" in process.stdout
    assert process.returncode == ("MISSED" in process.stdout)
