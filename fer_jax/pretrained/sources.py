"""The official ImageNet weights: where they are, what they are, and the input they expect."""

import dataclasses

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_KERAS = "https://storage.googleapis.com/tensorflow/keras-applications"


@dataclasses.dataclass(frozen=True)
class Source:
    """One checkpoint.

    Attributes:
      model: a name in `models.MODELS`.
      ecosystem: one of `naming.ECOSYSTEMS`.
      url: of the file.
      checksum: 'sha256:' or 'md5:' and hexadecimal digits, as many as its publisher gives: torchvision names
        its files by the first eight; '' where the server tells the whole on download.
      top1: reported accuracy on ImageNet's validation set in percent.
      resolution: pixels a side that it was reported at.
      licence: of the weights.
      mean, std: of the RGB input on the scale [0, 1]: it becomes (x - mean) / std.
      interpolation: that its images were resized by.
      padding, epsilon: the conventions that it was trained with, see `models.backbone.Backbone`.
    """

    model: str
    ecosystem: str
    url: str
    checksum: str
    top1: float
    resolution: int
    licence: str
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"
    padding: str = "symmetric"
    epsilon: float = 1e-5


def _torchvision(model: str, file: str, top1: float, resolution: int, **kwargs) -> Source:
    digits = file.rsplit("-", 1)[1].split(".")[0]
    url = f"https://download.pytorch.org/models/{file}"
    return Source(model, "torchvision", url, f"sha256:{digits}", top1, resolution, "BSD-3-Clause", **kwargs)


def _timm(model: str, tag: str, top1: float, resolution: int, **kwargs) -> Source:
    url = f"https://huggingface.co/timm/{tag}/resolve/main/model.safetensors"
    kwargs = {"licence": "Apache-2.0", "interpolation": "bicubic"} | kwargs
    return Source(model, "timm", url, "", top1, resolution, **kwargs)


def _keras(model: str, url: str, md5: str, top1: float, resolution: int, **kwargs) -> Source:
    kwargs = {"padding": "same", "epsilon": 1e-3} | kwargs
    return Source(model, "keras", url, f"md5:{md5}" if md5 else "", top1, resolution, "Apache-2.0", **kwargs)


_BICUBIC = {"interpolation": "bicubic"}
_BSD = {"interpolation": "bilinear", "licence": "BSD-3-Clause"}
# Keras' VGG16 takes BGR minus the mean, unscaled; the port turns its first kernel around to RGB.
_CAFFE = {"mean": (123.68 / 255, 116.779 / 255, 103.939 / 255), "std": (1 / 255,) * 3, "epsilon": 1e-5}
_SYMMETRIC_RANGE = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}

SOURCES = (
    _torchvision("efficientnet_b0", "efficientnet_b0_rwightman-7f5810bc.pth", 77.692, 224, **_BICUBIC),
    _torchvision("efficientnet_b2", "efficientnet_b2_rwightman-c35c1473.pth", 80.608, 288, **_BICUBIC),
    _torchvision("efficientnet_b4", "efficientnet_b4_rwightman-23ab8bcd.pth", 83.384, 380, **_BICUBIC),
    _torchvision("mobilenet_v2", "mobilenet_v2-7ebf99e0.pth", 72.154, 224),
    _torchvision("mobilenet_v3_small", "mobilenet_v3_small-047dcff4.pth", 67.668, 224, epsilon=1e-3),
    _torchvision("resnet18", "resnet18-f37072fd.pth", 69.758, 224),
    _torchvision("vgg16", "vgg16-397923af.pth", 71.592, 224),
    _torchvision("vgg16_bn", "vgg16_bn-6c64b313.pth", 73.360, 224),
    _timm("efficientnet_b0", "efficientnet_b0.ra_in1k", 77.694, 224),
    _timm("mobilenet_v2", "mobilenetv2_100.ra_in1k", 72.976, 224),
    _timm("mobilenet_v3_small", "mobilenetv3_small_100.lamb_in1k", 67.656, 224),
    _timm("resnet18", "resnet18.a1_in1k", 73.158, 288),
    _timm("vgg16", "vgg16.tv_in1k", 71.592, 224, **_BSD),
    _timm("vgg16_bn", "vgg16_bn.tv_in1k", 73.370, 224, **_BSD),
)
