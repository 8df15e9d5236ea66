"""ResNet18 at 224 px: follows a published recipe with 69.3 % on the 7,178 test images.

As configs/mobilenet_v3_small_224.py, but with all layers trained.
Run it with `python -m fer_jax.main --config configs/resnet18_224.py`.
It has no result yet: it has not been trained to the end.
"""

from configs.backbone_224 import get_config as backbone_224


def get_config():
    c = backbone_224("resnet18", weights="torchvision", input_size=224)
    c.optim.schedule = "plateau"
    c.optim.plateau_patience = 3
    c.selection.patience = 8
    c.stages = ({"epochs": 40.0, "train": "all", "learning_rate": 1e-4},)
    return c
