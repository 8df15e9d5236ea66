"""The models, by name."""

import flax.linen as nn

from fer_jax.models.cnn import CnnElu, CnnRelu

MODELS: dict[str, type[nn.Module]] = {
    "cnn_elu": CnnElu,
    "cnn_relu": CnnRelu,
}


def create(name: str, num_classes: int = 7, **kwargs) -> nn.Module:
    """The model `name` with `kwargs` as its attributes.

    Raises:
      ValueError: `name` or one of `kwargs` is unknown; the message lists those that exist.
    """
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}; there are: {', '.join(sorted(MODELS))}")
    fields = set(MODELS[name].__dataclass_fields__) - {"parent", "name"}
    unknown = sorted(set(kwargs) - fields)
    if unknown:
        raise ValueError(f"{name} has no attribute {unknown}; it has: {', '.join(sorted(fields))}")
    kwargs = {key: tuple(value) if isinstance(value, list) else value for key, value in kwargs.items()}
    return MODELS[name](num_classes=num_classes, **kwargs)
