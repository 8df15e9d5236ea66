"""A network of 242 thousand parameters for phones and browsers, taught by the bundled `cnn_small`.

Run it by `python -m fer_jax.main --config configs/cnn_tiny.py`. No metric yet.
"""

from configs.cnn_small import get_config as cnn_small


def get_config():
    c = cnn_small()
    c.augment.erasing = 0.0  # so small a network does not overfit
    c.augment.mixup = 0.0
    c.model.kwargs = dict(widths=(24, 48, 64, 96), depths=(1, 2, 2, 2), hidden=64, dropout=0.0)
    c.distill.teachers = ("cnn_small",)
    c.optim.weight_decay = 0.02
    c.train.epochs = 45.0
    return c
