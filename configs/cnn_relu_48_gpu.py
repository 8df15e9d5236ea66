"""A recipe for benchmarks/time_to_accuracy.py on one GPU.

`configs/cnn_relu_48_gpu.py` and `configs/cnn_relu_48_gpu.py:70` target 70 % on PublicTest,
`configs/cnn_relu_48_gpu.py:72` targets 72 %. There is no result yet: it has not been trained to the end.
"""

from configs.cnn_48_gpu import get_config as cnn_48_gpu
from configs.default import check_choice

EPOCHS = {"70": 30.0, "72": 80.0}


def get_config(target: str = "70"):
    c = cnn_48_gpu("plain")
    c.augment.mixup = 0.0
    c.optim.name = "muon"
    c.optim.learning_rate = 0.01
    c.optim.weight_decay = 0.03
    c.optim.warmup_epochs = 2.0
    c.train.batch_size = 512
    check_choice("cnn_relu_48_gpu.py", target, *EPOCHS)
    c.train.epochs = EPOCHS[target]
    return c
