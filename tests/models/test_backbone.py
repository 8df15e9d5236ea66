"""Tests the common parts of the ImageNet networks: stochastic depth, adapter, dtypes, sizes, and padding."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import models, runtime
from fer_jax.models import backbone
from fer_jax.models.backbone import Backbone, DropPath

# EfficientNet-B2 and B4 are B0 with other factors.
NETWORKS = ("efficientnet_b0", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "vgg16", "vgg16_bn")


def run(function, *arguments):
    return jax.jit(function, compiler_options=runtime.run_once_options())(*arguments)


def faces(size, channels=3, count=2):
    return np.random.default_rng(size).normal(size=(count, size, size, channels)).astype(np.float32)


# -------------------- stochastic depth --------------------


def test_drop_path_leaves_out_whole_images_and_scales_the_others():
    x = np.random.default_rng(0).uniform(1, 2, (1000, 2, 3, 2)).astype(np.float32)
    y = np.asarray(DropPath(0.2).apply({}, x, rngs={"dropout": jax.random.key(1)}))
    kept = (y != 0).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(y[~kept], 0)
    np.testing.assert_allclose(y[kept], x[kept] / 0.8, rtol=1e-6)
    assert abs(kept.mean() - 0.8) < 0.05  # four standard deviations
    np.testing.assert_array_equal(DropPath(0.0).apply({}, x), x)


@pytest.mark.parametrize(
    ("name", "blocks", "with_shortcut"),
    [
        ("efficientnet_b0", 16, [2, 4, 6, 7, 9, 10, 12, 13, 14]),
        ("mobilenet_v2", 17, [2, 4, 5, 7, 8, 9, 11, 12, 14, 15]),
        ("mobilenet_v3_small", 11, [2, 4, 5, 7, 9, 10]),
        ("resnet18", 8, range(8)),
    ],
)
def test_the_rate_of_a_block_grows_with_its_number(name, blocks, with_shortcut):
    rates = {}

    def note(next_function, args, kwargs, context):
        if isinstance(context.module, DropPath):
            rates[context.module.path[0]] = context.module.rate
        return next_function(*args, **kwargs)

    model = models.create(name, drop_path=0.4)
    face = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    with nn.intercept_methods(note):
        jax.eval_shape(functools.partial(model.init, train=True), keys, face)
    assert rates == {f"block_{i}": pytest.approx(0.4 * i / blocks) for i in with_shortcut}


# -------------------- input and output --------------------


class Means(Backbone):
    """A minimal network: its input after `enter`, averaged over space."""

    @nn.compact
    def __call__(self, x, train=False, features=False):
        return self.leave(self.enter(x).mean(axis=(1, 2)), train, features)


def test_the_adapter_is_a_3x3_convolution_to_three_channels():
    x, kernel = faces(5, 1), faces(3, 1, 3)[..., 0].transpose(1, 2, 0)[:, :, None]
    bias = np.float32([0.5, -1, 2])
    padded = np.pad(x[..., 0], ((0, 0), (1, 1), (1, 1)))
    parts = {(i, j): padded[:, i : i + 5, j : j + 5].mean(axis=(1, 2)) for i in range(3) for j in range(3)}
    expected = sum(part[:, None] * kernel[place] for place, part in parts.items())
    params = {"adapter": {"kernel": kernel, "bias": bias}}
    found = Means(adapter="rgb").apply({"params": params}, x, features=True)
    np.testing.assert_allclose(found, expected + bias, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18", "vgg16"])
def test_the_stem_behind_an_adapter_takes_colours(name):
    model = models.create(name, adapter="rgb")
    params = jax.eval_shape(model.init, jax.random.key(0), faces(32, 1))["params"]
    assert params["adapter"]["kernel"].shape == (3, 3, 1, 3)
    first = params["conv_0" if name.startswith("vgg") else "stem"]
    assert first["kernel"].shape[2] == 3


def test_an_unknown_adapter_is_refused():
    with pytest.raises(ValueError, match="adapter='gray': expected one of none, rgb"):
        jax.eval_shape(Means(adapter="gray").init, jax.random.key(0), faces(4))


def test_logits_are_the_head_on_the_features():
    x, kernel, bias = faces(4), np.random.default_rng(1).normal(size=(3, 7)), np.arange(7)
    params = {"head": {"kernel": np.float32(kernel), "bias": np.float32(bias)}}
    logits = Means(dropout=0.5).apply({"params": params}, x)
    np.testing.assert_allclose(logits, x.mean(axis=(1, 2)) @ kernel + bias, rtol=1e-5)


# -------------------- dtypes and sizes --------------------


@pytest.mark.parametrize(
    ("name", "parameters", "blocks", "features"),
    [
        ("efficientnet_b0", 5_288_548, 16, 1280),
        ("efficientnet_b2", 9_109_994, 23, 1408),
        ("efficientnet_b4", 19_341_616, 32, 1792),
        ("efficientnet_lite0", 4_652_008, 16, 1280),
        ("efficientnet_lite2", 6_092_072, 21, 1280),
        ("mobilenet_v2", 3_504_872, 17, 1280),
        ("mobilenet_v3_small", 2_542_856, 11, 1024),
        ("resnet18", 11_689_512, 8, 512),
        ("vgg16", 138_357_544, 0, 4096),
        ("vgg16_bn", 138_365_992, 0, 4096),
    ],
)
def test_the_published_number_of_parameters(name, parameters, blocks, features):
    model = models.create(name, num_classes=1000, **({"dense": True} if name.startswith("vgg") else {}))
    variables = models.variable_shapes(model, (224, 224, 3))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == parameters
    assert sum(part.startswith("block_") for part in variables["params"]) == blocks
    assert variables["params"]["head"]["kernel"].shape == (features, 1000)


def test_bfloat16_is_close_to_float32():
    """Uses training mode, in which batch statistics keep the activations of every layer from vanishing."""
    x = faces(48, count=8)

    def features(model, variables):
        return model.apply(variables, x, train=True, features=True, mutable=["batch_stats"])

    model = models.create("efficientnet_b0", width=0.2, depth=0.3, cut=4, dtype="bfloat16")
    variables = run(model.init, jax.random.key(0), x)
    exact, exact_stats = run(functools.partial(features, model.clone(dtype="float32")), variables)
    low, low_stats = run(functools.partial(features, model), variables)
    assert low.dtype == exact.dtype == jnp.float32
    spread = np.std(exact - np.mean(exact, axis=0))  # the faces differ only in this
    assert 0 < np.std(low - exact) < 0.05 * spread
    kept = jax.tree.leaves((variables, low_stats))
    assert {leaf.dtype.name for leaf in kept} == {"float32"}
    for a, b in zip(jax.tree.leaves(low_stats), jax.tree.leaves(exact_stats), strict=True):
        np.testing.assert_allclose(a, b, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("name", NETWORKS)
def test_any_size_goes_through(name, size=33):
    """Five halvings round up; VGG's round down, and its feature map is before the last one."""
    sides = []

    def note(next_function, args, kwargs, context):
        y = next_function(*args, **kwargs)
        if len(context.module.path) == 1 and y.ndim == 4:
            sides.append(y.shape[1:3])
        return y

    with nn.intercept_methods(note):
        y, _ = jax.eval_shape(models.create(name).init_with_output, jax.random.key(0), faces(size))
    assert y.shape == (2, 7)
    side = size // 16 if name.startswith("vgg") else 2
    assert sides[-1] == (side, side)


# -------------------- rules --------------------


def test_hard_activations_by_hand():
    x = jnp.float32([-4, -3, -1.5, 0, 1.5, 3, 4])
    np.testing.assert_allclose(backbone.hard_sigmoid(x), [0, 0, 0.25, 0.5, 0.75, 1, 1], atol=1e-7)
    np.testing.assert_allclose(backbone.hard_swish(x), [0, 0, -0.375, 0, 1.125, 3, 4], atol=1e-6)
