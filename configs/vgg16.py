"""VGG16 with BatchNorm at 112 px from timm's ImageNet weights: our recipe.

Run it by `python -m fer_jax.main --config configs/vgg16.py`.
No metric to expect yet: not trained to the end.
"""

from configs.fine_tuning import get_config as fine_tuning


def get_config():
    c = fine_tuning("vgg16_bn", weights="timm", input_size=112)
    c.model.kwargs = dict(dropout=0.5)
    return c
