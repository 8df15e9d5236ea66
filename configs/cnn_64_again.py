"""The CNN goes on from `cnn_64` by Muon, taught by it and by `cnn_1m_64`.

Run it by `python -m fer_jax.main --config configs/cnn_64_again.py`. No metric yet: not trained to the end.
"""

from configs.cnn_64 import get_config as cnn_64


def get_config():
    c = cnn_64()
    c.init_from = "cnn_64"
    c.distill.teachers = ("cnn_64", "cnn_1m_64")
    c.distill.weight = 0.9
    c.optim.name = "muon"
    c.optim.learning_rate = 0.004
    c.optim.weight_decay = 0.03
    c.train.epochs = 22.0
    c.train.sizes = ((0.3, 48), (0.55, 56))
    return c
