"""EfficientNet-B0 at 96 px as the Keras notebooks train it: answers to their 67.2 % on the test images.

Frozen first, then the last 100 layers of Keras at 3e-6, of which 54 have parameters.
Run it by `python -m fer_jax.main --config configs/effnet_b0_keras_96.py`.
No metric of ours yet: not trained to the end.
"""

from configs.default import augmentation
from configs.default import get_config as default


def get_config():
    c = default()
    c.augment = augmentation("backbone_96")
    c.model.name = "efficientnet_b0"
    c.model.input_size = 96
    c.model.channels = 3
    c.init.weights = "keras"
    c.optim.name = "adam"
    c.optim.schedule = "constant"
    c.train.batch_size = 64
    c.stages = (
        {"epochs": 20.0, "train": "head", "learning_rate": 1e-3},
        {"epochs": 20.0, "train": "layers", "last": 54, "learning_rate": 3e-6},
    )
    return c
