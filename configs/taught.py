"""Small networks for phones and browsers: one taught by the bundled `cnn`, a smaller one by it and `cnn_1m`.

Run the one of 992 thousand parameters by `python -m fer_jax.main --config configs/taught.py`, and the one of
242 thousand by `python -m fer_jax.main --config configs/taught.py:tiny --workdir runs/taught_tiny`.
The first reached 68.54 % on PublicTest (one view; 68.15 % after the last epoch) in 52 minutes on two shared
CPU cores with AVX-512 BF16 (seed 0, commit 53177b8), the second 67.34 % in 45 (seed 0, commit eaf7da9). Both
come with the package, as `cnn_1m` and `cnn_250k`.
"""

from configs.cnn_small import get_config as cnn_small

NETWORKS = {
    "small": dict(widths=(32, 64, 128, 192), depths=(1, 2, 3, 2), hidden=64, dropout=0.1),
    "tiny": dict(widths=(24, 48, 64, 96), depths=(1, 2, 2, 2), hidden=64, dropout=0.0),
}
TEACHERS = {"small": ("cnn",), "tiny": ("cnn", "cnn_1m")}


def get_config(network: str = "small"):
    c = cnn_small()
    # Teachers answer for mixed faces too, so that mixing costs no truth.
    c.augment.mixup = 0.4
    c.augment.mix_probability = 0.5
    if network not in NETWORKS:
        raise ValueError(f"configs/taught.py:{network}: there are {', '.join(NETWORKS)}")
    c.model.kwargs = NETWORKS[network]
    c.distill.teachers = TEACHERS[network]
    c.train.epochs = 40.0
    c.checkpoint.every_steps = 500
    return c
