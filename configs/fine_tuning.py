"""The common part of our fine-tuning recipes: one epoch of the head, then 40 of all layers.

It uses AdamW and layer-wise learning-rate decay at 112 px, by default for EfficientNet-B0. It has no result
yet: it has not been trained to the end.
"""

from ml_collections import ConfigDict

from configs.default import augmentation
from configs.default import get_config as default


def get_config(
    name: str = "efficientnet_b0",
    weights: str = "timm",
    input_size: int = 112,
    epochs: float = 40.0,
    learning_rate: float = 3e-4,
) -> ConfigDict:
    c = default()
    c.data.drop_blank = True
    c.data.merge_twins = True
    c.augment = augmentation("backbone_224")
    c.model.name = name
    c.model.input_size = input_size
    c.model.channels = 3
    c.init.weights = weights
    c.loss.label_smoothing = 0.1
    c.optim.name = "adamw"
    c.optim.weight_decay = 0.03
    c.optim.layer_decay = 0.85
    c.optim.warmup_epochs = 0.5
    c.train.batch_size = 64
    c.train.ema_decay = 0.999
    c.stages = (
        {"epochs": 1.0, "train": "head", "learning_rate": 1e-3},
        {"epochs": epochs, "train": "all", "learning_rate": learning_rate},
    )
    return c


def two_cores(c: ConfigDict) -> ConfigDict:
    """Adapts the recipe to two CPU cores: 13 epochs at 64, 80, and 96 px, distilled from two bundled CNNs."""
    c.augment.mix_probability = 0.5
    c.loss.label_smoothing = 0.0
    c.distill.teachers = ("cnn_1m_64", "cnn_64")
    c.distill.views = "plain"
    c.distill.weight = 0.7
    c.optim.layer_decay = 0.9
    c.optim.warmup_epochs = 0.25
    c.model.input_size = 96
    c.train.eval_epochs = 2.0
    c.train.sizes = ((0.5, 64), (0.85, 80))
    c.train.ema_decay = 0.998
    c.checkpoint.every_steps = 200
    c.checkpoint.dtype = "float16"
    c.stages = (
        {"epochs": 0.5, "train": "head", "learning_rate": 1e-3},
        {"epochs": 12.5, "train": "all", "learning_rate": 1e-3},
    )
    return c


def to_112_px(c: ConfigDict) -> None:
    """Trains at 80, 96, and 112 px instead, for a longer schedule."""
    c.model.input_size = 112
    c.train.sizes = ((0.4, 80), (0.8, 96))
    c.train.ema_decay = 0.999


def small_network(name: str, weights: str, size: str = "gpu") -> ConfigDict:
    """Returns the recipe for networks with less than ten million parameters, for a GPU or two CPU cores."""
    c = get_config(name, weights, epochs=24.0, learning_rate=1e-3)
    c.optim.layer_decay = 0.9
    if size == "cpu":
        two_cores(c)
        to_112_px(c)
        c.distill.teachers = ("effnet_b0", "cnn_1m_64", "cnn_64")
        c.stages[1]["epochs"] = 24.0
    return c
