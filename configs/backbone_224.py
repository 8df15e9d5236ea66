"""The common part of published recipes for ImageNet networks: Adam, three channels, batches of 64.

Experiments that follow a published result add their stages. On its own, this config trains all layers of
ResNet18 at 224 px for the default number of epochs. It has no result yet: it has not been trained to the end.
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
