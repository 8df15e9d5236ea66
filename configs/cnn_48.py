"""The CNN of configs/cnn.py, fine-tuned from its run and distilled from it and `configs/cnn_1m.py`.

Run it with `python -m fer_jax.main --config configs/cnn_48.py`. It reached 69.04 % on PublicTest (without
test-time augmentation, after the last epoch; 69.46 % with flips) in 59 minutes on two shared CPU cores with
AVX-512 BF16, after the 117 minutes of the initial weights (seed 0, commit b8ab249, where this file is
configs/cnn_again.py).
"""

from configs.cnn_fast import get_config as cnn_fast


def get_config():
    c = cnn_fast()
    c.init_from = "runs/cnn"
    # The teachers also label mixed faces, so strong mixing adds no label noise.
    c.augment.mixup = 0.4
    c.augment.mix_probability = 0.5
    c.distill.teachers = ("runs/cnn", "runs/cnn_1m")
    c.distill.weight = 0.8
    c.optim.learning_rate = 0.04
    c.train.epochs = 36.0
    c.train.eval_epochs = 4.0
    c.train.sizes = ((0.6, 40),)
    c.checkpoint.every_steps = 500
    return c
