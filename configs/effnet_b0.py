"""EfficientNet-B0 from ImageNet weights (TensorFlow's, ported by timm): our recipe, for a GPU or CPUs.

`python -m fer_jax.main --config configs/effnet_b0.py` fine-tunes it at 112 px for 41 epochs, for a GPU.
`python -m fer_jax.main --config configs/effnet_b0.py:cpu --workdir runs/effnet_b0_cpu` is for two CPU cores:
13 epochs at 64, 80, and 96 px, distilled from the bundled `cnn_1m_64` and `cnn_64`. To use a partial weights
file, port it first, and add --config.init.weights=weights/FILE:
`fer-jax port-weights --model efficientnet_b0 --from timm_tf --file PARTIAL --out weights --absent
blocks.6.0.conv_pwl.weight conv_head.weight`. Run the same command to resume.

The recipe for CPUs reached 67.62 % on PublicTest (without test-time augmentation, at the last of seven
evaluations, which was the best; 68.01 % with flips) in 242 minutes on two shared CPU cores with AVX2, about
100 on an idle machine (seed 0, commit 8d37ae7, from the partial file). Its weights are bundled as
`effnet_b0`. The accuracy was still rising at the end. The recipe for a GPU has not been trained to the end.

`python -m fer_jax.main --config configs/effnet_b0.py:cpu_112 --workdir runs/effnet_b0_cpu_112` fine-tunes the
bundled `effnet_b0` for 24 epochs at 80, 96, and 112 px. It has not been trained to the end.
"""

from configs.default import check_choice
from configs.fine_tuning import get_config as fine_tuning
from configs.fine_tuning import two_cores


def get_config(size: str = "gpu"):
    check_choice("effnet_b0.py", size, "gpu", "cpu", "cpu_112")
    c = fine_tuning("efficientnet_b0", weights="timm_tf", input_size=112)
    c.model.kwargs = dict(dropout=0.3, drop_path=0.2)
    if size != "gpu":
        two_cores(c)
        c.model.kwargs = dict(dropout=0.2, drop_path=0.1)
    if size == "cpu_112":
        c.init_from = "effnet_b0"
        c.init.weights = "none"
        c.model.input_size = 112
        c.train.sizes = ((0.4, 80), (0.8, 96))
        c.train.ema_decay = 0.999
        c.stages = ({"epochs": 24.0, "train": "all", "learning_rate": 7e-4},)
    return c
