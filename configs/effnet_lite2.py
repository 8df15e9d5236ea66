"""EfficientNet-Lite2 from ImageNet weights (TensorFlow's, as ported by timm): our recipe, in two sizes.

`python -m fer_jax.main --config configs/effnet_lite2.py` fine-tunes it at 112 px for 25 epochs, for a GPU.
`python -m fer_jax.main --config configs/effnet_lite2.py:cpu --workdir runs/effnet_lite2_cpu` is for two CPU
cores, as in `configs/effnet_b0.py`. No metric to expect yet: neither has been trained to the end.
"""

from configs.fine_tuning import check_size, two_cores
from configs.fine_tuning import get_config as fine_tuning


def get_config(size: str = "gpu"):
    check_size("effnet_lite2.py", size, "gpu", "cpu")
    c = fine_tuning("efficientnet_lite2", "timm_tf", epochs=24.0, learning_rate=1e-3)
    c.optim.layer_decay = 0.9
    return two_cores(c) if size == "cpu" else c
