"""A recipe for the shortest time to an accuracy on one GPU: what benchmarks/time_to_accuracy.py runs.

`configs/cnn_relu_48_gpu.py` or `configs/cnn_relu_48_gpu.py:70` is for 70 % on PublicTest,
`configs/cnn_relu_48_gpu.py:72` for 72 %. No metric yet: not trained to the end.
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
