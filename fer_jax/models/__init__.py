"""Models by name."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from fer_jax.models.cnn import CnnElu, CnnRelu, CnnResidual
from fer_jax.models.efficientnet import (
    EfficientNetB0,
    EfficientNetB2,
    EfficientNetB4,
    EfficientNetLite0,
    EfficientNetLite2,
)
from fer_jax.models.mobilenet import MobileNetV2, MobileNetV3Small
from fer_jax.models.resnet import ResNet18
from fer_jax.models.vgg import VGG16, VGG16BN

MODELS: dict[str, type[nn.Module]] = {
    "cnn_elu": CnnElu,
    "cnn_relu": CnnRelu,
    "cnn_residual": CnnResidual,
    "efficientnet_b0": EfficientNetB0,
    "efficientnet_b2": EfficientNetB2,
    "efficientnet_b4": EfficientNetB4,
    "efficientnet_lite0": EfficientNetLite0,
    "efficientnet_lite2": EfficientNetLite2,
    "mobilenet_v2": MobileNetV2,
    "mobilenet_v3_small": MobileNetV3Small,
    "resnet18": ResNet18,
    "vgg16": VGG16,
    "vgg16_bn": VGG16BN,
}


def create(name: str, num_classes: int = 7, **kwargs) -> nn.Module:
    """Creates a model by its name in `MODELS` and its attributes, of which lists become tuples.

    Raises:
      ValueError: the name or an attribute is unknown; the message lists the known ones.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(sorted(MODELS))}")
    fields = set(MODELS[name].__dataclass_fields__) - {"parent", "name"}
    unknown = sorted(set(kwargs) - fields)
    if unknown:
        raise ValueError(f"{name} has no attribute {unknown}; it has: {', '.join(sorted(fields))}")
    kwargs = {key: tuple(value) if isinstance(value, list) else value for key, value in kwargs.items()}
    return MODELS[name](num_classes=num_classes, **kwargs)


@functools.lru_cache(maxsize=16)
def variable_shapes(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, Any]:
    """Returns the shapes of a network's variables: {"params", "batch_stats"} of `jax.ShapeDtypeStruct`.

    The result is cached and must not be modified; the network has hashable attributes.

    Raises:
      ValueError: the network does not support faces of this size.
    """
    face = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), face)


def check_fit(variables: dict[str, Any], model: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Checks that variables have the names and shapes of a network's variables, see `variable_shapes`.

    Raises:
      ValueError: the message lists arrays that are missing, unexpected, or of another shape.
    """
    expected = variable_shapes(model, tuple(input_shape))
    shapes = [
        traverse_util.flatten_dict(jax.tree.map(jnp.shape, tree), sep="/") for tree in (variables, expected)
    ]
    differing = sorted(n for n in shapes[0] | shapes[1] if shapes[0].get(n) != shapes[1].get(n))
    if differing:
        lines = [
            f"  {name}: {shapes[0].get(name, 'nothing')} given, {shapes[1].get(name, 'nothing')} expected"
            for name in differing[:5]
        ]
        raise ValueError(
            f"the given weights are of another network ({len(differing)} arrays differ):\n" + "\n".join(lines)
        )
