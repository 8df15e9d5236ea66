"""CNNs for 48 px and a GPU, trained from scratch for 200 epochs.

Run all of them with `fer-jax train-list --out runs/gpu --configs cnn_48_gpu cnn_48_gpu:deep
cnn_48_gpu:plain`, the default with `python -m fer_jax.main --config configs/cnn_48_gpu.py`, or another one of
`NETWORKS` with `python -m fer_jax.main --config configs/cnn_48_gpu.py:plain --workdir runs/plain`. There is
no result yet: they have not been trained to the end.
"""

from configs.cnn import get_config as cnn
from configs.default import check_choice

NETWORKS = {
    "residual": (
        "cnn_residual",
        dict(widths=(64, 128, 256, 512), blocks=(1, 2, 2, 1), squeeze=16, drop_path=0.1, dropout=0.3),
    ),
    "deep": (
        "cnn_residual",
        dict(widths=(64, 128, 256, 384), blocks=(2, 3, 4, 2), squeeze=16, drop_path=0.2, dropout=0.3),
    ),
    "plain": (
        "cnn_relu",
        dict(widths=(64, 128, 256, 512), depths=(2, 2, 3, 3), hidden=512, dropout=0.4),
    ),
}


def get_config(network: str = "residual"):
    c = cnn()
    c.augment.rotation = 15.0
    c.augment.shift = 0.12
    c.augment.zoom = (0.85, 1.15)
    c.augment.contrast = (0.6, 1.4)
    c.augment.erasing = 0.25
    c.augment.mix_probability = 1.0
    check_choice("cnn_48_gpu.py", network, *NETWORKS)
    c.model.name, c.model.kwargs = NETWORKS[network]
    c.model.dtype = "bfloat16"
    c.optim.warmup_epochs = 5.0
    c.train.batch_size = 256
    c.train.epochs = 200.0
    c.train.eval_epochs = 10.0
    c.train.sizes = ()
    return c
