"""MobileNetV3-Small at 112 px from keras's ImageNet weights: our recipe.

Run it by `python -m fer_jax.main --config configs/mobilenet_v3_small.py`.
Expect 67 % on PublicTest (66.98 %, seed 0, two CPU cores, commit ff28a76; RESULTS.md says more).
"""

from configs.fine_tuning import get_config as fine_tuning


def get_config():
    c = fine_tuning("mobilenet_v3_small", weights="keras", epochs=24.0, learning_rate=1e-3)
    c.optim.layer_decay = 0.9
    return c
