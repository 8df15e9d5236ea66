"""MobileNetV2 at 112 px from keras's ImageNet weights: our recipe.

Run it by `python -m fer_jax.main --config configs/mobilenet_v2.py`.
No metric to expect yet: not trained to the end. Cut to 4 epochs (`configs/mobilenet_v2.py:3`) at 96 px, seed
0, commit 92a3124, it reaches 58.8 % on PublicTest, and 25.7 % with --config.init.weights=none.
"""

from configs.fine_tuning import get_config as fine_tuning


def get_config(epochs: str = "24"):
    c = fine_tuning("mobilenet_v2", "keras", epochs=float(epochs), learning_rate=1e-3)
    c.optim.layer_decay = 0.9
    return c
