"""The CNN of configs/cnn.py in 40 minutes on two CPU cores: 42 epochs in bfloat16, mostly on smaller faces.

Run it with `python -m fer_jax.main --config configs/cnn_fast.py`. It reached 68.04 % on PublicTest (without
test-time augmentation, after the last epoch, which was the best) in 39 minutes, including the report, on two
CPU cores with AVX-512 BF16 (seed 0, commit 30e5fa1).
"""

from configs.cnn import get_config as cnn


def get_config():
    c = cnn()
    c.augment.mix_probability = 0.3
    c.model.dtype = "bfloat16"
    c.train.epochs = 42.0
    c.train.eval_epochs = 6.0
    c.train.sizes = ((0.35, 32), (0.7, 40))
    return c
