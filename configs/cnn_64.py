"""The CNN continues from `cnn_again` at 64 px, upscaled bicubically, taught by it and by `cnn_1m`.

Run it by `python -m fer_jax.main --config configs/cnn_64.py`. It reached 69.99 % on PublicTest (one view,
after the last epoch; 70.33 % with the mirror image) in 127 minutes on two CPU cores with AVX-512 BF16 shared
with other work, of which it stood still for 15 (seed 0, commit d56d11b). Its last weights come with the
package, as `cnn_64`. Twenty-two more epochs from them by Muon, taught by them and `cnn_1m_64`, gave 69.99 %
again (configs/cnn_64_again.py of commit b901c30, seed 0, 76 minutes on the same cores): no gain, so they are
not kept.
"""

from configs.cnn_48 import get_config as cnn_48


def get_config():
    c = cnn_48()
    c.init_from = "cnn_again"
    c.augment.contrast = (0.6, 1.4)
    c.augment.erasing = 0.25
    c.distill.teachers = ("cnn_again", "cnn_1m")
    c.model.input_size = 64
    c.model.interpolation = "bicubic"
    c.train.epochs = 40.0
    c.train.sizes = ((0.3, 48), (0.55, 56))
    return c
