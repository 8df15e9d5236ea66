"""EfficientNet-B2 at 96 px as the Keras notebooks train it: 20 epochs of the head, 20 of everything.

No published figure that could be traced; the comparison is with our own recipe.
Run it by `python -m fer_jax.main --config configs/effnet_b2_keras_96.py`.
No metric of ours yet: not trained to the end.
"""

from configs.default import augmentation
from configs.default import get_config as default


def get_config():
    c = default()
    c.augment = augmentation("backbone_96")
    c.model.name = "efficientnet_b2"
    c.model.input_size = 96
    c.model.channels = 3
    c.init.weights = "keras"
    c.optim.name = "adam"
    c.optim.schedule = "constant"
    c.train.batch_size = 64
    c.stages = (
        {"epochs": 20.0, "train": "head", "learning_rate": 1e-3},
        {"epochs": 20.0, "train": "all", "learning_rate": 1e-5, "batch_norm": "frozen"},
    )
    return c
