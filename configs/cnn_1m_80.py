"""The network of one million parameters goes on from `cnn_1m_64` at 80 px, taught by it and `cnn_64`.

Run it by `python -m fer_jax.main --config configs/cnn_1m_80.py`. No metric yet: not trained to the end.
"""

from configs.cnn_1m_64 import get_config as cnn_1m_64


def get_config():
    c = cnn_1m_64()
    c.init_from = "cnn_1m_64"
    c.distill.teachers = ("cnn_64", "cnn_1m_64")
    c.model.input_size = 80
    c.optim.warmup_epochs = 1.0
    c.train.epochs = 10.0
    c.train.eval_epochs = 10.0
    c.train.sizes = ((0.3, 64),)
    return c
