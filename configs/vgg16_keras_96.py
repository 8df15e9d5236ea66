"""VGG16 at 96 px, as in Keras notebooks: 20 epochs of the head, then 20 of all layers.

No published accuracy could be traced; compare it with configs/vgg16.py.
Run it with `python -m fer_jax.main --config configs/vgg16_keras_96.py`.
It has no result yet: it has not been trained to the end.
"""

from configs.backbone_224 import get_config as backbone_224


def get_config():
    c = backbone_224("vgg16", weights="keras", input_size=96)
    c.stages = (
        {"epochs": 20.0, "train": "head", "learning_rate": 1e-3},
        {"epochs": 20.0, "train": "all", "learning_rate": 1e-5, "batch_norm": "frozen"},
    )
    return c
