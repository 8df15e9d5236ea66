"""MobileNetV2 at 96 px: follows a recipe of Keras notebooks with 49 % on validation.

The head is trained for five epochs at 1e-3, then the last 50 layers in Keras at 1e-5, of which 34 have
parameters. Run it with `python -m fer_jax.main --config configs/mobilenet_v2_keras_96.py`.
It has no result yet: it has not been trained to the end.
"""

from configs.backbone_224 import get_config as backbone_224


def get_config():
    c = backbone_224("mobilenet_v2", weights="keras", input_size=96)
    c.stages = (
        {"epochs": 5.0, "train": "head", "learning_rate": 1e-3},
        {"epochs": 15.0, "train": "layers", "last": 34, "learning_rate": 1e-5},
    )
    return c
