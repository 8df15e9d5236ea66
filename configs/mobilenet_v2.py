"""MobileNetV2 from Keras's ImageNet weights: our recipe, in two sizes.

`python -m fer_jax.main --config configs/mobilenet_v2.py` fine-tunes it at 112 px for 25 epochs, for a GPU.
`python -m fer_jax.main --config configs/mobilenet_v2.py:cpu --workdir runs/mobilenet_v2_cpu` is for two CPU
cores, as in `configs/effnet_b0.py`. No metric to expect yet: neither has been trained to the end.
"""

from configs.fine_tuning import check_size, two_cores
from configs.fine_tuning import get_config as fine_tuning


def get_config(size: str = "gpu"):
    check_size("mobilenet_v2.py", size, "gpu", "cpu")
    c = fine_tuning("mobilenet_v2", "keras", epochs=24.0, learning_rate=1e-3)
    c.optim.layer_decay = 0.9
    return two_cores(c) if size == "cpu" else c
