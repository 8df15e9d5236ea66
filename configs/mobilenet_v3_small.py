"""MobileNetV3-Small at 112 px from Keras' ImageNet weights: our recipe.

Run it with `python -m fer_jax.main --config configs/mobilenet_v3_small.py`.
It reached 66.98 % on PublicTest (seed 0, two CPU cores, commit ff28a76; see RESULTS.md).
"""

from configs.fine_tuning import small_network


def get_config():
    return small_network("mobilenet_v3_small", "keras")
