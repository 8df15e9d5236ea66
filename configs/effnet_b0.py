"""EfficientNet-B0 from ImageNet weights (TensorFlow's, as timm ported them): our recipe, in two sizes.

`python -m fer_jax.main --config configs/effnet_b0.py` fine-tunes it at 112 px for 41 epochs, for a GPU.
`python -m fer_jax.main --config configs/effnet_b0.py:cpu --workdir runs/effnet_b0_cpu` is for two CPU cores:
13 epochs on faces of 64, 80 and 96 px, on what the bundled `cnn_1m_64` and `cnn_64` answer.
Where the weights are at hand as a partial file, port it first, and add --config.init.weights=weights/FILE:
`fer-jax port-weights --model efficientnet_b0 --from timm_tf --file PARTIAL --out weights --absent
blocks.6.0.conv_pwl.weight conv_head.weight`. The same command resumes. No metric to expect yet: neither has
been trained to the end.
"""

from configs.fine_tuning import get_config as fine_tuning


def get_config(size: str = "gpu"):
    c = fine_tuning("efficientnet_b0", weights="timm_tf", input_size=112)
    c.model.kwargs = dict(dropout=0.3, drop_path=0.2)
    if size == "gpu":
        return c
    if size != "cpu":
        raise ValueError(f"configs/effnet_b0.py:{size}: there are gpu, cpu")
    c.model.kwargs = dict(dropout=0.2, drop_path=0.1)
    c.augment.mix_probability = 0.5
    c.loss.label_smoothing = 0.0
    c.distill.teachers = ("cnn_1m_64", "cnn_64")
    c.distill.views = "plain"
    c.distill.weight = 0.7
    c.optim.layer_decay = 0.9
    c.optim.warmup_epochs = 0.25
    c.model.input_size = 96
    c.train.eval_epochs = 2.0
    c.train.sizes = ((0.5, 64), (0.85, 80))
    c.train.ema_decay = 0.998
    c.checkpoint.every_steps = 200
    c.checkpoint.dtype = "float16"
    c.stages = (
        {"epochs": 0.5, "train": "head", "learning_rate": 1e-3},
        {"epochs": 12.5, "train": "all", "learning_rate": 1e-3},
    )
    return c
