"""MobileNetV2 from Keras' ImageNet weights: our recipe, for a GPU or two CPU cores.

`python -m fer_jax.main --config configs/mobilenet_v2.py` fine-tunes it at 112 px for 25 epochs, for a GPU.
`python -m fer_jax.main --config configs/mobilenet_v2.py:cpu --workdir runs/mobilenet_v2_cpu` is for two CPU
cores: 25 epochs at 80, 96, and 112 px, distilled from bundled networks. There is no result yet: neither has
been trained to the end.
"""

from configs.default import check_choice
from configs.fine_tuning import small_network


def get_config(size: str = "gpu"):
    check_choice("mobilenet_v2.py", size, "gpu", "cpu")
    return small_network("mobilenet_v2", "keras", size)
