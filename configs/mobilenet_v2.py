"""MobileNetV2 at 112 px from keras's ImageNet weights: our recipe.

Run it by `python -m fer_jax.main --config configs/mobilenet_v2.py`.
No metric to expect yet: not trained to the end.
"""

from configs.fine_tuning import get_config as fine_tuning


def get_config():
    c = fine_tuning("mobilenet_v2", "keras", epochs=24.0, learning_rate=1e-3)
    c.optim.layer_decay = 0.9
    return c
