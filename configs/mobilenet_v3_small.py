"""MobileNetV3-Small at 112 px from keras's ImageNet weights: our recipe.

Run it by `python -m fer_jax.main --config configs/mobilenet_v3_small.py`.
Expect 67 % on PublicTest (66.98 %, seed 0, two CPU cores, commit ff28a76; RESULTS.md says more).
"""

from configs.fine_tuning import small_network


def get_config():
    return small_network("mobilenet_v3_small", "keras")
