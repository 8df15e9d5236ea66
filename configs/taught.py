"""Small networks for phones and browsers, taught by the bundled `cnn` and a run of configs/cnn_small.py.

Run the one of 857 thousand parameters by `python -m fer_jax.main --config configs/taught.py` after
`python -m fer_jax.main --config configs/cnn_small.py`, the one of 242 thousand by
`python -m fer_jax.main --config configs/taught.py:tiny --workdir runs/taught_tiny`. No metric yet.
"""

from configs.cnn_small import get_config as cnn_small

NETWORKS = {
    "small": dict(widths=(32, 64, 128, 192), depths=(1, 2, 2, 2), hidden=128, dropout=0.1),
    "tiny": dict(widths=(24, 48, 64, 96), depths=(1, 2, 2, 2), hidden=64, dropout=0.0),
}


def get_config(network: str = "small"):
    c = cnn_small()
    # Teachers answer for mixed faces too, so that mixing costs no truth.
    c.augment.mixup = 0.4
    c.augment.mix_probability = 0.5
    if network not in NETWORKS:
        raise ValueError(f"configs/taught.py:{network}: there are {', '.join(NETWORKS)}")
    c.model.kwargs = NETWORKS[network]
    c.distill.teachers = ("cnn", "runs/cnn_small")
    c.train.epochs = 40.0
    c.checkpoint.every_steps = 500
    return c
