"""The CNN of configs/cnn_48.py, fine-tuned from its run at 64 px, distilled from it and `cnn_1m`.

Run it with `python -m fer_jax.main --config configs/cnn_64.py`. It reached 69.99 % on PublicTest (without
test-time augmentation, after the last epoch; 70.33 % with flips) in 127 minutes, 15 of them paused, on two
CPU cores with AVX-512 BF16 shared with other work (seed 0, commit d56d11b). Its last weights are bundled as
`cnn_64`. 22 more epochs with Muon, distilled from these weights and `cnn_1m_64`, also gave 69.99 %
(configs/cnn_64_again.py of commit b901c30, seed 0, 76 minutes on the same cores) and are not kept.
"""

from configs.cnn_48 import get_config as cnn_48


def get_config():
    c = cnn_48()
    c.init_from = "runs/cnn_48"
    c.augment.contrast = (0.6, 1.4)
    c.augment.erasing = 0.25
    c.distill.teachers = ("runs/cnn_48", "runs/cnn_1m")
    c.model.input_size = 64
    c.model.interpolation = "bicubic"
    c.train.epochs = 40.0
    c.train.sizes = ((0.3, 48), (0.55, 56))
    return c
