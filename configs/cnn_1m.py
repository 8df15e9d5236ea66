"""A network with 992 thousand parameters for phones and browsers, distilled from `configs/cnn.py`.

Run it with `python -m fer_jax.main --config configs/cnn_1m.py`. It reached 68.54 % on PublicTest (without
test-time augmentation; 68.15 % after the last epoch) in 52 minutes on two shared CPU cores with AVX-512 BF16
(seed 0, commit 53177b8, where this file is configs/taught.py).
"""

from configs.cnn_small import get_config as cnn_small


def get_config():
    c = cnn_small()
    # The teachers also label mixed faces, so strong mixing adds no label noise.
    c.augment.mixup = 0.4
    c.augment.mix_probability = 0.5
    c.model.kwargs = dict(widths=(32, 64, 128, 192), depths=(1, 2, 3, 2), hidden=64, dropout=0.1)
    c.distill.teachers = ("runs/cnn",)
    c.train.epochs = 40.0
    c.checkpoint.every_steps = 500
    return c
