"""A residual CNN with squeeze-excitation, 2 M parameters, taught by the bundled `cnn` and `cnn_1m`.

Run it by `python -m fer_jax.main --config configs/cnn_residual.py`. No metric yet: not trained to the end.
"""

from configs.cnn_fast import get_config as cnn_fast


def get_config():
    c = cnn_fast()
    # Teachers answer for mixed faces too, so that mixing costs no truth.
    c.augment.mixup = 0.4
    c.augment.mix_probability = 0.5
    c.model.name = "cnn_residual"
    c.model.kwargs = dict(
        widths=(32, 64, 128, 256), blocks=(0, 1, 1, 1), squeeze=8, drop_path=0.05, dropout=0.2
    )
    c.distill.teachers = ("cnn", "cnn_1m")
    c.distill.weight = 0.8
    c.train.epochs = 62.0
    c.train.eval_epochs = 4.0
    c.checkpoint.every_steps = 500
    return c
