"""EfficientNet-B0 at 240 px with class weights: follows a published recipe with 71.3 % on the test images.

The published accuracy is that of the best epoch on the test images. All layers are trained from the start.
Run it with `python -m fer_jax.main --config configs/effnet_b0_240.py`.
It has no result yet: it has not been trained to the end.
"""

from configs.backbone_224 import get_config as backbone_224
from configs.default import augmentation


def get_config():
    c = backbone_224("efficientnet_b0", weights="torchvision", input_size=240)
    c.augment = augmentation("backbone_224")
    c.optim.schedule = "cosine"
    c.train.batch_size = 32
    c.loss.class_weights = "balanced"
    c.stages = ({"epochs": 30.0, "train": "all", "learning_rate": 1e-4},)
    return c
