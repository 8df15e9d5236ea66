"""ResNet18: its size, and its stem for small faces."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from fer_jax import models


def traced(size, **kwargs):
    """The parameters' shapes, and the side of what leaves each part."""
    sides = {}

    def note(next_function, args, kwargs, context):
        y = next_function(*args, **kwargs)
        if len(context.module.path) == 1 and y.ndim == 4:
            sides[context.module.path[0]] = y.shape[1]
        return y

    face = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    with nn.intercept_methods(note):
        variables = jax.eval_shape(models.create("resnet18", **kwargs).init, jax.random.key(0), face)
    return variables["params"], sides


@pytest.mark.parametrize(
    ("small_stem", "kernel", "stem", "blocks"),
    [(False, 7, 24, [12, 12, 6, 6, 3, 3, 2, 2]), (True, 3, 48, [48, 48, 24, 24, 12, 12, 6, 6])],
)
def test_the_small_stem_keeps_the_pixels_of_a_small_face(small_stem, kernel, stem, blocks):
    params, sides = traced(48, small_stem=small_stem)
    assert params["stem"]["kernel"].shape == (kernel, kernel, 3, 64)
    assert sides["stem"] == stem
    assert [sides[f"block_{i}"] for i in range(8)] == blocks
