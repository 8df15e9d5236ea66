"""Lists the official ImageNet weights: location, license, reported accuracy, and expected input."""

import dataclasses
from typing import Any

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Source:
    """One checkpoint."""

    model: str  # a name in `models.MODELS`
    ecosystem: str  # one of `key_map.ECOSYSTEMS`
    url: str  # URL of the file
    # As in `download.fetch`, with the digits that the publisher gives: torchvision uses the first eight of
    # SHA-256 in file names, Keras lists MD5, and the Hugging Face Hub sends SHA-256.
    checksum: str
    top1: float | None  # reported accuracy on ImageNet's validation set in percent, None if unknown
    resolution: int  # input size of that accuracy in pixels
    licence: str  # license of the weights
    # Normalization of the RGB input in [0, 1], (x - mean) / std.
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"  # interpolation in its training: 'bilinear' or 'bicubic'
    padding: str = "symmetric"  # conventions of its training, see `models.backbone.Backbone`
    epsilon: float = 1e-5
    bgr: bool = False  # whether its first layer takes BGR, which porting converts


def find(model: str, ecosystem: str) -> Source:
    """Returns the checkpoint of a model.

    Raises:
      ValueError: there is none; the message lists all.
    """
    for source in SOURCES:
        if (source.model, source.ecosystem) == (model, ecosystem):
            return source
    known = ", ".join(sorted(s.ecosystem for s in SOURCES if s.model == model))
    if known:
        raise ValueError(f"{ecosystem!r} has no ImageNet weights for {model}; there are: {known}")
    models = ", ".join(sorted({s.model for s in SOURCES}))
    raise ValueError(f"there are no ImageNet weights for {model}, only for: {models}")


def _torchvision(model: str, file: str, top1: float, resolution: int, **kwargs) -> Source:
    digits = file.rsplit("-", 1)[1].split(".")[0]
    url = f"https://download.pytorch.org/models/{file}"
    checksum = f"sha256:{digits}"
    return Source(model, "torchvision", url, checksum, top1, resolution, "BSD-3-Clause", **kwargs)


# Revision and SHA-256 of files on the Hugging Face Hub; for others, the latest revision and the SHA-256 from
# the Hub.
_HUB = {
    "efficientnet_b0.ra_in1k": (
        "1b5383e5f79cc0f7fc067e372f8f26a5fa73f26a",
        "d569899762ea9b1384ee07f4af64805cf8caa1c55f9253ebb1080dc40e87a2cd",
    ),
    "efficientnet_b4.ra2_in1k": ("main", "8030f9c929ed71a06728db4b61323960e573b463e68f310bd1bfb31ed62cbf91"),
    "mobilenetv2_100.ra_in1k": ("main", "55ea4fb3a96010b933710ebf44fc965b070d5cd054d3f35e44f2d1320b4a714e"),
    "mobilenetv3_small_100.lamb_in1k": (
        "1824797e7887cbec1990e4adbd6675960a36c589",
        "46d2c063b18125884c48937afa4c49e18128869e52e8db96df48bf0a4d7ff697",
    ),
    "resnet18.a1_in1k": (
        "491b427b45c94c7fb0e78b5474cc919aff584bbf",
        "80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
    ),
    "vgg16.tv_in1k": (
        "b8d8aa2dd860af9233c8c67385a8097fd6c35d3f",
        "57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8",
    ),
}


def _timm(model: str, tag: str, top1: float | None, resolution: int, **kwargs) -> Source:
    revision, sha256 = _HUB.get(tag, ("main", ""))
    url = f"https://huggingface.co/timm/{tag}/resolve/{revision}/model.safetensors"
    checksum = f"sha256:{sha256}" if sha256 else ""
    options: dict[str, Any] = {"licence": "Apache-2.0", "interpolation": "bicubic"} | kwargs
    return Source(model, "timm", url, checksum, top1, resolution, **options)


def _timm_tf(model: str, top1: float, resolution: int, **kwargs) -> Source:
    source = _timm(model, f"tf_{model}.in1k", top1, resolution, padding="same", epsilon=1e-3, **kwargs)
    return dataclasses.replace(source, ecosystem="timm_tf")


_KERAS_VGG16 = "vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5"
_KERAS_V2 = "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
_KERAS_V3 = "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float.h5"
# MD5 of Keras' files; it gives none for MobileNetV2.
_KERAS_MD5 = {
    "efficientnetb0.h5": "902e53a9f72be733fc0bcb005b3ebbac",
    "efficientnetb2.h5": "b15cce36ff4dcbd00b6dd88e7857a6ad",
    "efficientnetb4.h5": "18c95ad55216b8f92d7e70b3a046e2fc",
    _KERAS_V3: "8768d4c2e7dee89b9d02b2d03d65d862",
    _KERAS_VGG16: "64373286793e3c8b2b4e3219cbf3544b",
}


def _keras(model: str, file: str, top1: float, resolution: int, **kwargs) -> Source:
    folder = "tensorflow/keras-applications" if "/" in file else "keras-applications"
    url = f"https://storage.googleapis.com/{folder}/{file}"
    checksum = f"md5:{_KERAS_MD5[file]}" if file in _KERAS_MD5 else ""
    kwargs = {"padding": "same", "epsilon": 1e-3} | kwargs
    return Source(model, "keras", url, checksum, top1, resolution, "Apache-2.0", **kwargs)


_BICUBIC = {"interpolation": "bicubic"}
_FROM_TORCHVISION = {"interpolation": "bilinear", "licence": "BSD-3-Clause"}
_MINUS_ONE_TO_ONE = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
# Keras' VGG16 takes BGR from 0 to 255 minus the mean.
_CAFFE = {"mean": (123.68 / 255, 116.779 / 255, 103.939 / 255), "std": (1 / 255,) * 3, "bgr": True}

# From torchvision's `*_Weights`, timm's `pretrained_cfg` and table of results, and keras.applications.
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
    _timm("efficientnet_b2", "efficientnet_b2.ra_in1k", None, 288),
    _timm("efficientnet_b4", "efficientnet_b4.ra2_in1k", None, 384),
    _timm("mobilenet_v2", "mobilenetv2_100.ra_in1k", 72.976, 224),
    _timm("mobilenet_v3_small", "mobilenetv3_small_100.lamb_in1k", 67.656, 224),
    _timm("resnet18", "resnet18.a1_in1k", 73.158, 288),
    _timm("vgg16", "vgg16.tv_in1k", 71.592, 224, **_FROM_TORCHVISION),
    _timm("vgg16_bn", "vgg16_bn.tv_in1k", 73.370, 224, **_FROM_TORCHVISION),
    _timm_tf("efficientnet_b0", 76.53, 224),
    _timm_tf("efficientnet_lite0", 74.83, 224, **_MINUS_ONE_TO_ONE),
    _timm_tf("efficientnet_lite2", 77.46, 260, **_MINUS_ONE_TO_ONE),
    _keras("efficientnet_b0", "efficientnetb0.h5", 77.1, 224, **_BICUBIC),
    _keras("efficientnet_b2", "efficientnetb2.h5", 80.1, 260, **_BICUBIC),
    _keras("efficientnet_b4", "efficientnetb4.h5", 82.9, 380, **_BICUBIC),
    _keras("mobilenet_v2", _KERAS_V2, 71.3, 224, **_MINUS_ONE_TO_ONE),
    _keras("mobilenet_v3_small", _KERAS_V3, 68.1, 224, **_MINUS_ONE_TO_ONE),
    _keras("vgg16", _KERAS_VGG16, 71.3, 224, **_CAFFE),
)
