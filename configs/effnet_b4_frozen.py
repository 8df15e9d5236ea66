"""EfficientNet-B4's trunk at rest, from partial ImageNet weights: a linear probe at 96 px, for a CPU.

The weights lack two kernels of the last block: the network is cut before it, at 448 features. First
`python scripts/port_weights.py --model efficientnet_b4 --from timm --file FILE --out weights --absent
blocks.6.1.conv_pw.weight blocks.6.1.conv_pwl.weight`, then
`python -m fer_jax.main --config configs/effnet_b4_frozen.py`. Seed 0 at commit 92a3124 reached 43.7 % on
PublicTest (95 % 42.1 - 45.4) in 16 minutes on two CPU cores beside other work: a linear probe.
"""

from configs.fine_tuning import get_config as fine_tuning


def get_config():
    c = fine_tuning("efficientnet_b4", weights="weights/efficientnet_b4_timm.safetensors", input_size=96)
    c.model.kwargs = dict(cut=31, dropout=0.2)
    c.optim.warmup_epochs = 0.2
    c.stages = ({"epochs": 5.0, "train": "head", "learning_rate": 1e-3},)
    return c
