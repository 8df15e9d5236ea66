"""MobileNetV2 and MobileNetV3-Small: their size and their parts."""

import jax
import numpy as np
import pytest

from fer_jax import models


@pytest.mark.parametrize(
    ("name", "parameters", "blocks", "features"),
    [("mobilenet_v2", 3_504_872, 17, 1280), ("mobilenet_v3_small", 2_542_856, 11, 1024)],
)
def test_the_published_number_of_parameters(name, parameters, blocks, features):
    model = models.create(name, num_classes=1000)
    face = jax.ShapeDtypeStruct((2, 224, 224, 3), np.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), face)
    params = variables["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == parameters
    assert sum(part.startswith("block_") for part in params) == blocks
    found = jax.eval_shape(lambda v, x: model.apply(v, x, features=True), variables, face)
    assert found.shape == (2, features)
