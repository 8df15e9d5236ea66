"""Tests that the training step and the forward pass lower for a GPU on a machine without one."""

import functools
import re

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, NamedSharding, PartitionSpec

from fer_jax import models
from fer_jax.data import preprocessing
from fer_jax.models.ops import onednn
from fer_jax.training import losses, optim, train_step
from fer_jax.training.state import create_state

SIZE, BATCH = 12, 8
PREPROCESS = dict(size=SIZE, mean=0.5, std=0.25, channels=1)
CNN = dict(widths=(32, 32), depths=(1, 2), hidden=8)  # with and without Winograd's algorithm
B0 = dict(width=0.2, depth=0.3, cut=2)


@functools.cache
def model_and_step(name, dtype):
    """Returns a network, its training step, and the shapes of their arguments."""
    model = models.create(name, dtype=dtype, **(CNN if name == "cnn_relu" else B0))
    tx = optim.make_optimizer("sgd", lambda step: 0.1, momentum=0.9)
    step = train_step.make_train_step(model, tx, losses.cross_entropy, **PREPROCESS)
    shape = (SIZE, SIZE, 1)
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), models.variable_shapes(model, shape))
    state = create_state(model, tx, input_shape=shape, seed=0, use_ema=False, variables=variables)
    state = jax.eval_shape(lambda: state)
    batch = {"image": np.zeros((BATCH, SIZE, SIZE, 1), np.uint8)}
    batch |= {"target": np.zeros((BATCH, 7), np.float32), "affine": np.zeros((BATCH, 2, 3), np.float32)}
    batch = jax.eval_shape(lambda: batch)
    return model, step, state, batch


def module_of(platform, function, devices, whole, split):
    """Returns the StableHLO of `function(*whole, *split)`; a mesh shards the batches in `split`."""
    mesh = AbstractMesh((devices,), ("data",))
    replicated, divided = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    shardings = (*[replicated] * len(whole), *[divided] * len(split))
    compiled = jax.jit(function, in_shardings=shardings) if devices > 1 else jax.jit(function)
    unchecked = [jax.export.DisabledSafetyCheck.custom_call(name) for name in ONEDNN]
    export = jax.export.export(compiled, platforms=[platform], disabled_checks=unchecked)
    exported = export(*whole, *split)
    assert exported.nr_devices == devices
    return exported.mlir_module()


ONEDNN = ("__onednn$convolution", "__onednn$matmul")
CASES = [("cnn_relu", "float32"), ("cnn_relu", "bfloat16"), ("efficientnet_b0", "float32")]


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_a_program_for_cuda_has_no_custom_call_of_the_cpu(name, dtype, devices):
    model, step, state, batch = model_and_step(name, dtype)
    trained = module_of("cuda", step, devices, [state], [batch])
    assert "__onednn" not in trained and trained.count("stablehlo.convolution") > 5
    forward = preprocessing.make_forward(model, **PREPROCESS)
    inputs = [batch["image"], batch["affine"]]
    evaluated = module_of("cuda", forward, devices, [state.variables()], inputs)
    assert "__onednn" not in evaluated
    products = re.findall(r"stablehlo\.(?:convolution|dot_general).*", evaluated)
    assert products and all(len(re.findall("HIGHEST", line)) == 2 for line in products)


def test_the_same_program_for_the_cpu_has_them():
    if not onednn.is_usable("float32"):
        pytest.skip("needs a single CPU, Linux on x86-64, and a jaxlib of onednn.TESTED_JAXLIB")
    _, step, state, batch = model_and_step("cnn_relu", "float32")
    module = module_of("cpu", step, 1, [state], [batch])
    assert "__onednn$convolution" in module and "stablehlo.convolution" in module
