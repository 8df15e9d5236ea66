"""The network of one million parameters continues from `cnn_1m` at 64 px, taught by `cnn_64`.

Run it by `python -m fer_jax.main --config configs/cnn_1m_64.py`. It reached 70.27 % on PublicTest (one view,
after the last epoch, the best; 70.30 % with the mirror image) in 86 minutes on two CPU cores with AVX-512
BF16 shared with other work (seed 0, commit e446783). Its weights come with the package, as `cnn_1m_64`.
Twelve more epochs from them at half the rate, taught by them and `cnn_64`, gave 70.33 %
(configs/cnn_1m_64_again.py of commit f9fa088), and ten on faces of 80 px at the full rate, taught by the
same, 69.57 % (configs/cnn_1m_80.py of commit 5337e9f, one evaluation, 46 minutes). The same training under
seed 1, for 26 epochs and taught by both, ended at 69.74 % (69.96 % after epoch 24;
configs/cnn_1m_two_teachers.py of commit da29813, 69 minutes with nothing else running). None is a gain, so
they are not kept.
"""

from configs.cnn_1m import get_config as cnn_1m


def get_config():
    c = cnn_1m()
    c.init_from = "cnn_1m"
    c.augment.contrast = (0.6, 1.4)
    c.augment.erasing = 0.25
    c.distill.teachers = ("cnn_64",)
    c.model.input_size = 64
    c.model.interpolation = "bicubic"
    c.optim.learning_rate = 0.004
    c.train.epochs = 36.0
    c.train.sizes = ((0.35, 48), (0.65, 56))
    return c
