"""VGG16 with BatchNorm at 112 px from timm's ImageNet weights: our recipe.

Run it with `python -m fer_jax.main --config configs/vgg16.py`.
It has no result yet: it has not been trained to the end.
"""

from configs.fine_tuning import get_config as fine_tuning


def get_config():
    c = fine_tuning("vgg16_bn", weights="timm", input_size=112)
    c.model.kwargs = dict(dropout=0.5)
    return c
