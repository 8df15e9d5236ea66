"""A network of 242 thousand parameters for phones and browsers, from scratch on FER2013.

Run it by `python -m fer_jax.main --config configs/tiny.py`. No metric yet.
"""

from configs.default import augmentation
from configs.default import get_config as default


def get_config():
    c = default()
    c.data.drop_blank = True
    c.data.merge_twins = True
    c.augment = augmentation("cnn")
    c.augment.erasing = 0.0  # so small a network does not overfit
    c.model.kwargs = dict(widths=(24, 48, 64, 96), depths=(1, 2, 2, 2), hidden=64, dropout=0.1)
    c.model.dtype = "bfloat16"
    c.loss.label_smoothing = 0.1
    c.optim.learning_rate = 0.1
    c.optim.weight_decay = 3e-4
    c.optim.warmup_epochs = 2.0
    c.train.batch_size = 128
    c.train.epochs = 80.0
    c.train.eval_epochs = 4.0
    c.train.sizes = ((0.25, 32), (0.5, 40))
    c.train.ema_decay = 0.999
    return c
