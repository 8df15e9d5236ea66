"""A network like that of configs/cnn.py, in two columns from its third block on, which teach each other.

Run it by `python -m fer_jax.main --config configs/cnn_columns.py`. Not trained to the end yet: no metric to
expect. The loss is the mean over the columns: twice the learning rate and half the weight decay move each
as 0.1 and 5e-4 would move it alone.
"""

from configs.default import augmentation
from configs.default import get_config as default


def get_config():
    c = default()
    c.data.drop_blank = True
    c.data.merge_twins = True
    c.augment = augmentation("cnn")
    c.model.name = "cnn_columns"
    c.model.kwargs = dict(
        columns=2, shared=2, widths=(32, 64, 128, 256), depths=(1, 2, 3, 2), hidden=256, dropout=0.3
    )
    c.loss.label_smoothing = 0.1
    c.loss.distillation = 0.5
    c.optim.learning_rate = 0.2
    c.optim.weight_decay = 2.5e-4
    c.optim.warmup_epochs = 2.0
    c.train.batch_size = 128
    c.train.epochs = 44.0
    c.train.sizes = ((0.25, 36),)
    c.train.ema_decay = 0.999
    return c
