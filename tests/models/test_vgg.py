"""VGG16 with and without BatchNorm: its size, and the sizes it takes."""

import jax
import numpy as np
import pytest

from fer_jax import models


def shapes(model, size):
    face = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
    return jax.eval_shape(model.init, jax.random.key(0), face)


def test_without_the_dense_layers_the_head_takes_the_means():
    params = shapes(models.create("vgg16"), 48)["params"]
    assert params["head"]["kernel"].shape == (512, 7)
    assert set(params) == {"head", *(f"conv_{i}" for i in range(13))}


def test_a_face_of_which_nothing_would_be_left_is_refused():
    with pytest.raises(ValueError, match="faces of 31x31 are too small for this model: at least 32x32"):
        shapes(models.create("vgg16_bn"), 31)
