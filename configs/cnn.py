"""The CNN from scratch on FER2013: four Conv-BN-ReLU blocks, progressive resizing, averaged weights."""

from configs.default import augmentation
from configs.default import get_config as default


def get_config():
    c = default()
    c.data.drop_blank = True
    c.data.merge_twins = True
    c.augment = augmentation("light")
    c.augment.rotation = 12.0
    c.augment.shift = 0.1
    c.augment.erasing = 0.1
    c.model.kwargs = dict(widths=(40, 80, 160, 320), hidden=256, dropout=0.4)
    c.loss.label_smoothing = 0.1
    c.optim.learning_rate = 0.1
    c.optim.weight_decay = 5e-4
    c.optim.warmup_epochs = 2.0
    c.train.batch_size = 128
    c.train.epochs = 52.0
    c.train.sizes = ((0.65, 32),)
    c.train.ema_decay = 0.999
    return c
