"""Small configs, a network, and batches for tests of training."""

import functools

import numpy as np
from helpers import tiny_config

from fer_jax import models
from fer_jax.data import augment

BIASES = (0.1, 0.2, 0.3, 2.0, -0.4, 0.0, 0.5)
# Includes everything that resuming must restore: statistics, dropout, EMA, random augmentation.
WHOLE = {"model.name": "two_layers", "model.kwargs": {"dropout": 0.2}, "checkpoint.every_steps": 3}


def simple_config(data, **changes):
    """Returns `tiny_config` with the linear model and a minimal recipe."""
    simple = {"model.name": "linear", "train.ema_decay": 0.0, "loss.class_weights": "none"}
    return config_of(data, **simple | {"optim.warmup_epochs": 0.0, "model.kwargs": {}} | changes)


def config_of(data, **changes):
    """Returns `tiny_config` with only the model attributes in the changes."""
    config = tiny_config(data)
    config.model.kwargs = changes.pop("model.kwargs", config.model.kwargs)
    config.update_from_flattened_dict(changes)
    return config


@functools.cache
def small_cnn():
    return models.create("cnn_relu", widths=(4, 8), depths=(1, 1), hidden=8, dropout=0.0)


def batch_of(count, size=12, seed=0, **parameters):
    """Returns a batch of random faces and labels, which is not augmented."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, size, size, 1), dtype=np.uint8)
    targets = np.eye(7, dtype=np.float32)[rng.integers(0, 7, count)]
    return {"image": images, "target": targets, "affine": augment.identity_affine(count), **parameters}


PLATEAU = {"optim.schedule": "plateau", "optim.plateau_patience": 1, "train.eval_steps": 1}
STAGES = (
    {"epochs": 0.7, "train": "head", "learning_rate": 0.1},  # 3 steps with batches of 16 of 70 faces
    {"epochs": 1.15, "train": "all", "learning_rate": 0.01},  # 5 more
)


def staged_config(data, stages=STAGES, **changes):
    """Returns a config with stages that logs the learning rate at every step."""
    fixed = {"model.name": "two_layers", "train.steps": None, "log_every": 1, "stages": stages}
    return simple_config(data, **fixed | {"optim.schedule": "constant"} | changes)
