"""ResNet18 at 112 px from timm's ImageNet weights: our recipe.

Run it with `python -m fer_jax.main --config configs/resnet18.py`.
It has no result yet: it has not been trained to the end.
"""

from configs.fine_tuning import get_config as fine_tuning


def get_config():
    c = fine_tuning("resnet18", weights="timm", input_size=112)
    c.model.kwargs = dict(drop_path=0.1)
    return c
