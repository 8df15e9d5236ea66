"""The original networks with deterministic weights, and their outputs: the references of test_porting.

    python tests/pretrained/originals.py
    python tests/pretrained/originals.py efficientnet_lite0/timm_tf    # keeps the others

Builds the networks of torchvision, timm, and Keras (requires torch, torchvision, and timm), and writes
references.npz next to this file: library versions, names and shapes of arrays, and features and logits for
deterministic faces. To keep the file small, arrays are derived from their names, and only the first features
are stored. `pytest -m originals` compares everything with the original networks.
"""

import json
import os
import pathlib
import sys
import zlib
from collections.abc import Callable
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"

import numpy as np

SIZES = (64, 97)
DENSE_SIZE = 224  # the input size of VGG16's dense layers, without stored references
CLASSES = 10
KEPT_FEATURES = 64
REFERENCES = pathlib.Path(__file__).with_name("references.npz")
MEAN, STD = np.float32((0.485, 0.456, 0.406)), np.float32((0.229, 0.224, 0.225))


def same(name: str) -> dict[str, str]:
    """Returns the names for a network with the same name in torchvision and timm."""
    return {"torchvision": name, "timm": name}


MODELS = {
    "efficientnet_b0": same("efficientnet_b0") | {"timm_tf": "tf_efficientnet_b0", "keras": "EfficientNetB0"},
    "efficientnet_b2": same("efficientnet_b2") | {"keras": "EfficientNetB2"},
    "efficientnet_b4": same("efficientnet_b4") | {"keras": "EfficientNetB4"},
    "efficientnet_lite0": {"timm_tf": "tf_efficientnet_lite0"},
    "efficientnet_lite2": {"timm_tf": "tf_efficientnet_lite2"},
    "mobilenet_v2": {"torchvision": "mobilenet_v2", "timm": "mobilenetv2_100", "keras": "MobileNetV2"},
    "mobilenet_v3_small": {
        "torchvision": "mobilenet_v3_small",
        "timm": "mobilenetv3_small_100",
        "keras": "MobileNetV3Small",
    },
    "resnet18": same("resnet18"),
    "vgg16": same("vgg16") | {"keras": "VGG16"},
    "vgg16_bn": same("vgg16_bn"),
}
CASES = [(model, ecosystem) for model, names in MODELS.items() for ecosystem in names]

Answers = dict[str, np.ndarray]


def drawn(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the array of a name.

    The scale of kernels lets every layer affect the logits without amplifying rounding errors: with He's
    2 / fan, float32 errors in EfficientNet-B4's first layers would change its logits by a tenth.
    """
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    name = key.replace("/", ".").split(".")[-1]
    if "var" in name:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name == "gamma" or (name == "weight" and len(shape) == 1):
        return rng.uniform(0.8, 1.2, shape).astype(np.float32)
    if len(shape) <= 1:
        return rng.normal(0, 0.1, shape).astype(np.float32)
    # Keras has the output axis last, or in depthwise kernels the channel axis second to last; torch, first.
    keras = name == "kernel"
    depthwise = keras and ("dw" in key or "depthwise" in key)
    fan = np.prod(shape[:2] if depthwise else shape[:-1] if keras else shape[1:])
    return rng.normal(0, np.sqrt(1.75 / fan), shape).astype(np.float32)


def faces(size: int) -> np.ndarray:
    """Returns normalized input float32 [2, size, size, 3]."""
    return np.random.default_rng(size).normal(size=(2, size, size, 3)).astype(np.float32)


def has_dense_layers(model: str, size: int) -> bool:
    """Returns whether a network has VGG16's dense layers for an input size."""
    return model.startswith("vgg") and size == DENSE_SIZE


def original(
    model: str, ecosystem: str, size: int
) -> tuple[dict[str, np.ndarray], dict[str, str], Callable[[], Answers]]:
    """Builds an original network with deterministic weights for an input size.

    Returns:
      Its arrays by their names in current files; {} or for Keras the numbered names; and
      answer() -> {"features" [2, F], and "logits" [2, 10] if the size allows a head}.
    """
    name, dense = MODELS[model][ecosystem], has_dense_layers(model, size)
    return _keras(name, size, dense) if ecosystem == "keras" else _torch(name, ecosystem, size, dense)


def _torch(name: str, ecosystem: str, size: int, dense: bool):
    import torch

    # Without its C++ operators, which are not needed, torchvision requires two declarations.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        try:
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        except RuntimeError:
            pass  # already declared
    import timm
    import torchvision

    from_timm = ecosystem != "torchvision"
    if from_timm:
        net = timm.create_model(name, pretrained=False, num_classes=CLASSES)
    else:
        net = getattr(torchvision.models, name)(weights=None, num_classes=CLASSES)
    net.eval()
    state = net.state_dict()
    for key, value in state.items():
        if not key.endswith("num_batches_tracked"):
            state[key] = torch.from_numpy(drawn(key, tuple(value.shape)))
    net.load_state_dict(state)

    @torch.no_grad()
    def answer() -> Answers:
        x = torch.from_numpy(faces(size).transpose(0, 3, 1, 2).copy())
        if name.startswith("vgg") and not dense:
            maps = net.forward_features(x) if from_timm else net.features(x)
            return {"features": maps.mean((2, 3)).numpy()}
        if from_timm:
            features = net.forward_head(net.forward_features(x), pre_logits=True)
        else:
            seen = []
            last = net.fc if name == "resnet18" else net.classifier[-1]
            hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            net(x)
            hook.remove()
            features = seen[0]
        return {"features": features.numpy(), "logits": net(x).numpy()}

    return {key: value.numpy() for key, value in state.items()}, {}, answer


def keras_network(name: str, size: int, dense: bool) -> tuple[Any, dict[str, np.ndarray], dict[str, str]]:
    """Returns a network of keras.applications, its arrays by name, and their numbered names."""
    import keras

    numbered: dict[str, str] = {}
    arrays: dict[str, np.ndarray] = {}
    keras.utils.clear_session()
    kwargs: dict[str, Any] = {"weights": None, "input_shape": (size, size, 3)}
    if name == "VGG16" and not dense:
        kwargs |= {"include_top": False, "pooling": "avg"}
    else:
        kwargs |= {"classes": CLASSES, "classifier_activation": None}
    if name == "MobileNetV3Small":
        kwargs["include_preprocessing"] = False
    net = getattr(keras.applications, name)(**kwargs)
    kinds: dict[str, int] = {}
    for layer in net.layers:
        if not layer.weights:
            continue
        if layer.name == "normalization":  # as with ImageNet weights
            layer.set_weights([MEAN, STD**2, np.int64(0)])
            layer.finalize_state()
            continue
        kind = keras.src.utils.naming.to_snake_case(type(layer).__name__)
        number = kinds.get(kind, 0)
        kinds[kind] = number + 1
        for i, weight in enumerate(layer.weights):
            key = f"{layer.name}/{weight.name}"
            arrays[key] = drawn(key, tuple(weight.shape))
            numbered[f"{kind}_{number}/{i}" if number else f"{kind}/{i}"] = key
            weight.assign(arrays[key])
    return net, arrays, numbered


def _keras(name: str, size: int, dense: bool):
    import keras

    net, arrays, numbered = keras_network(name, size, dense)

    def answer() -> Answers:
        x = faces(size)
        if name.startswith("EfficientNet"):  # it takes 0 to 255 and normalizes
            x = (x * STD + MEAN) * 255
        if name == "VGG16":
            x = x[..., ::-1]  # BGR; the input has our scale
            if not dense:
                return {"features": np.asarray(net(x))}
        places = {"MobileNetV2": "global_average_pooling2d", "MobileNetV3Small": "conv_2", "VGG16": "fc2"}
        place = net.get_layer(places.get(name, "avg_pool")).output
        features, logits = keras.Model(net.inputs, [place, net.output])(x)
        features = np.asarray(features).reshape(2, -1)
        if name == "MobileNetV3Small":
            features = features * np.clip(features / 6 + 0.5, 0, 1)
        return {"features": features, "logits": np.asarray(logits)}

    return arrays, numbered, answer


def main() -> None:
    asked = [tuple(case.split("/")) for case in sys.argv[1:]]
    kept: dict[str, Any] = dict(np.load(REFERENCES)) if asked else {}
    for model, ecosystem in asked or CASES:
        for size in SIZES:
            arrays, numbered, answer = original(model, ecosystem, size)
            shapes = {key: list(value.shape) for key, value in arrays.items()}
            about = {"shapes": shapes, "numbered": numbered}
            kept[f"{model}/{ecosystem}/arrays"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
            for what, value in answer().items():
                kept[f"{model}/{ecosystem}/{size}/{what}"] = value[:, :KEPT_FEATURES]
        print(model, ecosystem, len(arrays), file=sys.stderr, flush=True)
    np.savez_compressed(REFERENCES, **kept)


if __name__ == "__main__":
    main()
