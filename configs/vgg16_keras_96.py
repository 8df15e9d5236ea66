"""VGG16 at 96 px as the Keras notebooks train it: 20 epochs of the head, 20 of everything.

No published figure that could be traced; the comparison is with our own recipe.
Run it by `python -m fer_jax.main --config configs/vgg16_keras_96.py`.
No metric of ours yet: not trained to the end.
"""

from configs.backbone_224 import get_config as backbone_224


def get_config():
    c = backbone_224("vgg16", weights="keras", input_size=96)
    c.stages = (
        {"epochs": 20.0, "train": "head", "learning_rate": 1e-3},
        {"epochs": 20.0, "train": "all", "learning_rate": 1e-5, "batch_norm": "frozen"},
    )
    return c
