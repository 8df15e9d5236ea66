"""Small networks for two CPU cores, 20 epochs from scratch: what scripts/train_best.py trains without a GPU.

Run all by `python scripts/train_best.py --config configs/best_small.py --out runs/best_small`, or one by
`python -m fer_jax.main --config configs/best_small.py:tiny --workdir runs/tiny`. No metric yet: not trained
to the end.
"""

from configs.cnn_small import get_config as cnn_small

NETWORKS = {
    "small": dict(widths=(32, 64, 128, 192), depths=(1, 2, 2, 2), hidden=128, dropout=0.2),
    "tiny": dict(widths=(24, 48, 64, 96), depths=(1, 2, 2, 2), hidden=64, dropout=0.0),
}


def get_config(network: str = "small"):
    c = cnn_small()
    if network not in NETWORKS:
        raise ValueError(f"configs/best_small.py:{network}: there are {', '.join(NETWORKS)}")
    c.model.kwargs = NETWORKS[network]
    c.train.epochs = 20.0
    c.checkpoint.every_steps = 500
    return c
