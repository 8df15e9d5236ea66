"""A network with 242 thousand parameters for phones and browsers, distilled from `cnn` and `cnn_1m`.

Its teachers are runs of `configs/cnn.py` and `configs/cnn_1m.py`.

Run it with `python -m fer_jax.main --config configs/cnn_250k.py`. It reached 67.34 % on PublicTest (without
test-time augmentation) in 45 minutes on two shared CPU cores with AVX-512 BF16 (seed 0, commit eaf7da9, where
this is configs/taught.py:tiny). Its weights are bundled as `cnn_250k`.
"""

from configs.cnn_1m import get_config as cnn_1m


def get_config():
    c = cnn_1m()
    c.model.kwargs = dict(widths=(24, 48, 64, 96), depths=(1, 2, 2, 2), hidden=64, dropout=0.0)
    c.distill.teachers = ("runs/cnn", "runs/cnn_1m")
    return c
