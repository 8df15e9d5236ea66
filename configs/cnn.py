"""A CNN trained from scratch on FER2013: nine convolutions in four blocks, mixup, EMA weights.

Run it with `python -m fer_jax.main --config configs/cnn.py`. It reached 68.74 % on PublicTest (without
test-time augmentation) in 117 minutes on two shared CPU cores (seed 0, commit fc5796f).
"""

from configs.default import augmentation
from configs.default import get_config as default


def get_config():
    c = default()
    c.data.drop_blank = True
    c.data.merge_twins = True
    c.augment = augmentation("cnn")
    c.augment.mixup = 0.2
    c.augment.mix_probability = 0.5
    c.model.kwargs = dict(widths=(32, 64, 128, 256), depths=(1, 2, 3, 3), hidden=256, dropout=0.3)
    c.loss.label_smoothing = 0.1
    c.optim.learning_rate = 0.1
    c.optim.weight_decay = 5e-4
    c.optim.warmup_epochs = 2.0
    c.train.batch_size = 128
    c.train.epochs = 60.0
    c.train.eval_epochs = 2.0
    c.train.sizes = ((0.2, 32), (0.4, 40))
    c.train.mix_until = 0.9
    c.train.ema_decay = 0.999
    return c
