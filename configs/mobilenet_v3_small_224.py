"""MobileNetV3-Small at 224 px: follows a published recipe with 69.8 % on the test images.

The stem and the first six of eleven blocks are frozen; Adam with reduce-on-plateau.
Run it with `python -m fer_jax.main --config configs/mobilenet_v3_small_224.py`.
It has no result yet: it has not been trained to the end.
"""

from configs.backbone_224 import get_config as backbone_224


def get_config():
    c = backbone_224("mobilenet_v3_small", weights="torchvision", input_size=224)
    c.optim.schedule = "plateau"
    c.optim.plateau_patience = 3
    c.selection.patience = 8
    c.stages = ({"epochs": 40.0, "train": "blocks", "last": 7, "learning_rate": 1e-3},)
    return c
