"""The three-block ELU network of FER2013 notebooks (64-128-256, heavy dropout, Dense 128).

Run it with `python -m fer_jax.main --config configs/cnn_elu.py`. It reached 64.59 % on PublicTest (without
test-time augmentation) in 58 minutes on two shared CPU cores (seed 0, commit 66e290f); the last epoch was the
best.
"""

from configs.default import augmentation
from configs.default import get_config as default


def get_config():
    c = default()
    c.data.drop_blank = True
    c.data.merge_twins = True
    c.augment = augmentation("light")
    c.model.name = "cnn_elu"
    c.model.input_size = 36
    c.model.kwargs = dict(block_dropout=(0.1, 0.2, 0.3), dropout=0.5)
    c.loss.label_smoothing = 0.1
    c.optim.name = "adamw"
    c.optim.learning_rate = 1e-3
    c.optim.weight_decay = 0.05
    c.optim.warmup_epochs = 1.0
    c.train.batch_size = 64
    c.train.epochs = 16.0
    c.train.ema_decay = 0.998
    return c
