"""Tests what is specific to a family of ImageNet networks: truncation, stems, and dense layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax import models, runtime


def noting(found):
    """Returns an interceptor of methods that records the output of each part of a network."""

    def note(next_function, args, kwargs, context):
        y = next_function(*args, **kwargs)
        if len(context.module.path) == 1 and y.ndim == 4:
            found[context.module.path[0]] = y
        return y

    return nn.intercept_methods(note)


# -------------------- EfficientNet --------------------


def test_a_network_that_is_cut_has_the_features_of_the_whole_at_that_block():
    whole = models.create("efficientnet_b0", width=0.2, depth=0.1)
    x = np.random.default_rng(0).normal(size=(2, 33, 33, 3)).astype(np.float32)
    # In training mode, batch statistics keep activations from vanishing.
    options = runtime.run_once_options()
    variables = jax.jit(whole.init, compiler_options=options)(jax.random.key(0), x)

    def features(variables, x):
        how, found = {"train": True, "mutable": ["batch_stats"]}, {}
        with noting(found):
            whole.apply(variables, x, rngs={"dropout": jax.random.key(1)}, **how)
        cut, _ = whole.clone(cut=4).apply(variables, x, features=True, **how)
        return found["block_3"].mean(axis=(1, 2)), cut

    expected, cut = jax.jit(features, compiler_options=options)(variables, jnp.asarray(x))
    assert not np.allclose(expected[0], expected[1], rtol=0.1)  # the faces differ
    np.testing.assert_allclose(cut, expected, rtol=1e-4, atol=1e-6)


def test_a_network_that_is_cut_has_no_more_than_it_uses():
    # B4's partial ImageNet weights end before its last block: 448 channels.
    params = models.variable_shapes(models.create("efficientnet_b4", cut=31), (48, 48, 3))["params"]
    parts = {"stem", "stem_norm", "head", *(f"block_{i}" for i in range(31))}
    assert set(params) == parts and params["head"]["kernel"].shape == (448, 7)


# -------------------- ResNet18 --------------------


@pytest.mark.parametrize(
    ("small_stem", "kernel", "stem", "blocks"),
    [(False, 7, 24, [12, 12, 6, 6, 3, 3, 2, 2]), (True, 3, 48, [48, 48, 24, 24, 12, 12, 6, 6])],
)
def test_the_small_stem_keeps_the_pixels_of_a_small_face(small_stem, kernel, stem, blocks):
    model, found = models.create("resnet18", small_stem=small_stem), {}
    with noting(found):
        variables = models.variable_shapes.__wrapped__(model, (48, 48, 3))
    assert variables["params"]["stem"]["kernel"].shape == (kernel, kernel, 3, 64)
    assert found["stem"].shape[1] == stem
    assert [found[f"block_{i}"].shape[1] for i in range(8)] == blocks


# -------------------- VGG16 --------------------


def test_without_the_dense_layers_the_head_takes_the_means():
    params = models.variable_shapes(models.create("vgg16"), (48, 48, 3))["params"]
    assert params["head"]["kernel"].shape == (512, 7)
    assert set(params) == {"head", *(f"conv_{i}" for i in range(13))}


def test_a_face_of_which_nothing_would_be_left_is_refused():
    with pytest.raises(ValueError, match="faces of 31x31 are too small for this model: at least 32x32"):
        models.variable_shapes(models.create("vgg16_bn"), (31, 31, 3))
