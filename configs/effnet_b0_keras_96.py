"""EfficientNet-B0 at 96 px: follows a recipe of Keras notebooks with 67.2 % on the test images.

The head is trained first, then the last 100 layers in Keras at 3e-6, of which 54 have parameters.
Run it with `python -m fer_jax.main --config configs/effnet_b0_keras_96.py`.
It has no result yet: it has not been trained to the end.
"""

from configs.backbone_224 import get_config as backbone_224


def get_config():
    c = backbone_224("efficientnet_b0", weights="keras", input_size=96)
    c.stages = (
        {"epochs": 20.0, "train": "head", "learning_rate": 1e-3},
        {"epochs": 20.0, "train": "layers", "last": 54, "learning_rate": 3e-6},
    )
    return c
