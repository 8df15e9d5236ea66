"""EfficientNet: where it is cut."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fer_jax import models, runtime


def shapes(model, size=224):
    face = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    return jax.eval_shape(model.init, jax.random.key(0), face)["params"]


def test_a_network_that_is_cut_has_the_features_of_the_whole_at_that_block():
    whole = models.create("efficientnet_b0", width=0.2, depth=0.1)
    x = np.random.default_rng(0).normal(size=(2, 33, 33, 3)).astype(np.float32)
    # In training mode each layer's numbers are normalized: none of them fades.
    options = runtime.run_once_options()
    variables = jax.jit(whole.init, compiler_options=options)(jax.random.key(0), x)

    def features(variables, x):
        found = {}

        def note(next_function, args, kwargs, context):
            y = next_function(*args, **kwargs)
            if len(context.module.path) == 1:
                found[context.module.path[0]] = y
            return y

        with nn.intercept_methods(note):
            whole.apply(
                variables, x, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)}
            )
        cut, _ = whole.clone(cut=4).apply(variables, x, train=True, features=True, mutable=["batch_stats"])
        return found["block_3"].mean(axis=(1, 2)), cut

    expected, cut = jax.jit(features, compiler_options=options)(variables, jnp.asarray(x))
    assert not np.allclose(expected[0], expected[1], rtol=0.1)  # the faces differ
    np.testing.assert_allclose(cut, expected, rtol=1e-4, atol=1e-6)


def test_a_network_that_is_cut_has_no_more_than_it_uses():
    # B4's partial ImageNet weights end before its last block: 448 channels.
    params = shapes(models.create("efficientnet_b4", cut=31), size=48)
    parts = {"stem", "stem_norm", "head", *(f"block_{i}" for i in range(31))}
    assert set(params) == parts and params["head"]["kernel"].shape == (448, 7)
