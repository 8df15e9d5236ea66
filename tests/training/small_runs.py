"""Small configurations for the tests of training, and what they are computed from."""

from helpers import tiny_config

BIASES = (0.1, 0.2, 0.3, 2.0, -0.4, 0.0, 0.5)
# With all that a resumed run could get wrong: statistics, dropout, averaged weights, drawn augmentations.
WHOLE = {
    "model.name": "two_layers",
    "model.kwargs": {"dropout": 0.2},
    "checkpoint.every_steps": 3,
}


def simple_config(data, **changes):
    """`tiny_config` with the linear model and nothing of its recipe that the model does not need."""
    simple = {"model.name": "linear", "train.ema_decay": 0.0, "loss.class_weights": "none"}
    return config_of(data, **simple | {"optim.warmup_epochs": 0.0, "model.kwargs": {}} | changes)


def config_of(data, **changes):
    """`tiny_config`, whose model's attributes are none but those in the changes."""
    config = tiny_config(data)
    config.model.kwargs = changes.pop("model.kwargs", config.model.kwargs)
    config.update_from_flattened_dict(changes)
    return config
