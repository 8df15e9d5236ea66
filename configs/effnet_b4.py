"""EfficientNet-B4 at 144 px from partial ImageNet weights, with all layers fine-tuned: our recipe, for a GPU.

The weights lack two kernels of the last block, so the network is truncated before it, at 448 features. First
run `fer-jax port-weights --model efficientnet_b4 --from timm --file FILE --out weights --absent
blocks.6.1.conv_pw.weight blocks.6.1.conv_pwl.weight`, then
`python -m fer_jax.main --config configs/effnet_b4.py`. It has not been run.
"""

from configs.fine_tuning import get_config as fine_tuning


def get_config():
    c = fine_tuning("efficientnet_b4", weights="weights/efficientnet_b4_timm.safetensors", input_size=144)
    c.model.kwargs = dict(cut=31, dropout=0.4, drop_path=0.2)
    return c
