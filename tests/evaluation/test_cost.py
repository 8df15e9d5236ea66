"""Tests FLOPs against published numbers and by hand, and the format of latencies."""

import jax
import numpy as np
import pytest

from fer_jax import models
from fer_jax.evaluation import cost
from fer_jax.pretrained.loaded_model import LoadedModel


def shapes_of(model, *shape):
    x = jax.ShapeDtypeStruct((1, *shape), np.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)


@pytest.mark.parametrize(
    ("name", "side", "millions"),
    [
        ("mobilenet_v2", 224, 300),  # multiply-adds, Sandler et al. 2018, table 4
        ("mobilenet_v3_small", 224, 56),  # Howard et al. 2019, table 3
        ("efficientnet_b0", 224, 390),  # Tan & Le 2019, table 2
        ("resnet18", 224, 1814),  # torchvision's model card
        ("vgg16", 224, 15470),  # likewise
    ],
)
def test_flops_are_those_that_the_papers_publish(name, side, millions):
    model = models.create(name, 1000)
    found = cost.flops(model, shapes_of(model, side, side, 3), (side, side, 3))
    assert found / 2e6 == pytest.approx(millions, rel=0.02)


def test_flops_of_a_network_counted_by_hand():
    model = models.create("cnn_relu", widths=(4, 8), hidden=5)
    convolutions = 12**2 * 9 * (1 * 4 + 4 * 4) + 6**2 * 9 * (4 * 8 + 8 * 8)
    expected = 2 * (convolutions + 8 * 5 + 5 * 7)
    assert cost.flops(model, shapes_of(model, 12, 12, 1), (12, 12, 1)) == expected


def test_latency_of_weights_in_a_file(tiny_run):
    trained = LoadedModel(tiny_run)
    found = cost.latency(trained, (40, 40, 1), calls=5, warm_up=1)
    low, high = found["quartiles_milliseconds"]
    assert 0 < low <= found["milliseconds"] <= high and found["calls"] == 5
    assert found["hardware"] == cost.hardware() and found["hardware"]
    flops = cost.flops(trained.model, trained.variables, (48, 48, 1))
    assert cost.measure(trained) == {"flops": flops, "latency": None}
