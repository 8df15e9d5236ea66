"""What the field's published recipes for ImageNet networks share: Adam, three channels, batches of 64.

The experiments that answer to a published figure set their stages on top; by itself it trains all of ResNet18
at 224 px for the default's epochs. No metric of ours yet: not trained to the end.
"""

from ml_collections import ConfigDict

from configs.default import augmentation
from configs.default import get_config as default


def get_config(name: str = "resnet18", weights: str = "torchvision", input_size: int = 224) -> ConfigDict:
    c = default()
    c.augment = augmentation("backbone_96")
    c.model.name = name
    c.model.input_size = input_size
    c.model.channels = 3
    c.init.weights = weights
    c.optim.name = "adam"
    c.optim.schedule = "constant"
    c.train.batch_size = 64
    return c
