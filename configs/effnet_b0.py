"""EfficientNet-B0 from ImageNet weights (TensorFlow's, ported by timm): our recipe, for a GPU or CPUs.

`python -m fer_jax.main --config configs/effnet_b0.py` fine-tunes it at 112 px for 41 epochs, for a GPU. It
has not been trained to the end.

The recipe for two CPU cores has two parts, both distilled from the bundled `cnn_1m_64` and `cnn_64`; run the
same command to resume:

* `python -m fer_jax.main --config configs/effnet_b0.py:cpu --workdir runs/effnet_b0_cpu`: 13 epochs at 64,
  80, and 96 px. It reached 67.62 % on PublicTest (without test-time augmentation, at the last of seven
  evaluations, which was the best) in 242 minutes on two shared CPU cores with AVX2, about 100 on an idle
  machine (seed 0, commit 8d37ae7). The initial weights were a partial file, ported by `fer-jax port-weights
  --model efficientnet_b0 --from timm_tf --file PARTIAL --out weights --absent blocks.6.0.conv_pwl.weight
  conv_head.weight` and passed by --config.init.weights=weights/FILE.
* `python -m fer_jax.main --config configs/effnet_b0.py:cpu_112 --workdir runs/effnet_b0_cpu_112`: 24 more
  epochs at 80, 96, and 112 px. It reached 71.08 % on PublicTest (without test-time augmentation, at the
  eleventh of twelve evaluations; 70.94 % with flips) in 457 minutes on two shared CPU cores with AVX2
  (seed 0, commit b1c9385). Its weights are bundled as `effnet_b0`.
"""

from configs.default import check_choice
from configs.fine_tuning import get_config as fine_tuning
from configs.fine_tuning import to_112_px, two_cores


def get_config(size: str = "gpu"):
    check_choice("effnet_b0.py", size, "gpu", "cpu", "cpu_112")
    c = fine_tuning("efficientnet_b0", weights="timm_tf", input_size=112)
    c.model.kwargs = dict(dropout=0.3, drop_path=0.2)
    if size != "gpu":
        two_cores(c)
        c.model.kwargs = dict(dropout=0.2, drop_path=0.1)
    if size == "cpu_112":
        c.init_from = "runs/effnet_b0_cpu"
        c.init.weights = "none"
        to_112_px(c)
        c.stages = ({"epochs": 24.0, "train": "all", "learning_rate": 7e-4},)
    return c
