"""An ImageNet network at 112 px: the head for an epoch, then everything for 40, AdamW, layer-wise decay.

The recipe that the experiments of our own share; here it trains EfficientNet-B0. No metric to expect yet: not
trained to the end.
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
