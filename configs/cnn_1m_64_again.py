"""The network of one million parameters goes on once more, taught by itself and `cnn_64`.

Run it by `python -m fer_jax.main --config configs/cnn_1m_64_again.py`. No metric yet: not trained to the end.
"""

from configs.cnn_1m_64 import get_config as cnn_1m_64


def get_config():
    c = cnn_1m_64()
    c.init_from = "cnn_1m_64"
    c.distill.teachers = ("cnn_64", "cnn_1m_64")
    c.optim.learning_rate = 0.002
    c.train.epochs = 12.0
    c.train.sizes = ()
    return c
