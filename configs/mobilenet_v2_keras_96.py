"""MobileNetV2 at 96 px as the Keras notebooks train it: answers to 49 % on validation.

Five epochs of the head at 1e-3, then the last 50 layers of Keras at 1e-5, of which 34 have parameters.
Run it by `python -m fer_jax.main --config configs/mobilenet_v2_keras_96.py`.
No metric of ours yet: not trained to the end.
"""

from configs.backbone_224 import get_config as backbone_224


def get_config():
    c = backbone_224("mobilenet_v2", weights="keras", input_size=96)
    c.stages = (
        {"epochs": 5.0, "train": "head", "learning_rate": 1e-3},
        {"epochs": 15.0, "train": "layers", "last": 34, "learning_rate": 1e-5},
    )
    return c
