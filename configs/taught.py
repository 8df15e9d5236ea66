"""Small networks for phones and browsers: one taught by the bundled `cnn`, a smaller one by both.

Run the one of 992 thousand parameters by `python -m fer_jax.main --config configs/taught.py`, then the one
of 242 thousand by `python -m fer_jax.main --config configs/taught.py:tiny --workdir runs/taught_tiny`.
No metric yet: not trained to the end.
"""

from configs.cnn_small import get_config as cnn_small

NETWORKS = {
    "small": dict(widths=(32, 64, 128, 192), depths=(1, 2, 3, 2), hidden=64, dropout=0.1),
    "tiny": dict(widths=(24, 48, 64, 96), depths=(1, 2, 2, 2), hidden=64, dropout=0.0),
}
TEACHERS = {"small": ("cnn",), "tiny": ("cnn", "runs/taught")}


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
