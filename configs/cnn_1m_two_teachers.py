"""`cnn_1m_64` once more, from another seed and taught by two networks: `cnn_64` and `cnn_1m_64`.

Run it by `python -m fer_jax.main --config configs/cnn_1m_two_teachers.py`. No metric yet: not trained to the
end.
"""

from configs.cnn_1m_64 import get_config as cnn_1m_64


def get_config():
    c = cnn_1m_64()
    c.seed = 1
    c.distill.teachers = ("cnn_64", "cnn_1m_64")
    c.train.epochs = 26.0
    return c
