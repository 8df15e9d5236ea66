"""What our layers are called in the checkpoints of torchvision, timm and Keras."""

import dataclasses
from collections.abc import Iterator
from typing import Any

# timm_tf: what TensorFlow trained, as timm ported it: timm's names, TensorFlow's conventions.
ECOSYSTEMS = ("torchvision", "timm", "timm_tf", "keras")
_PARTS = {
    ("expand",): "conv",
    ("expand_norm",): "norm",
    ("depthwise",): "depthwise",
    ("depthwise_norm",): "norm",
    ("squeeze", "reduce"): "dense",
    ("squeeze", "expand"): "dense",
    ("project",): "conv",
    ("project_norm",): "norm",
}


@dataclasses.dataclass(frozen=True)
class Slot:
    """One layer with parameters.

    Attributes:
      path: ours, from the top of the tree.
      name: the other library's; in a torch checkpoint the keys are this, a dot, and `weight` and so on.
      kind: 'conv', 'depthwise', 'dense' or 'norm'.
    """

    path: tuple[str, ...]
    name: str
    kind: str


def slots(model: str, ecosystem: str, params: dict[str, Any]) -> list[Slot]:
    """The layers of a model in the order of the data, which is the order Keras numbers them in.

    Args:
      model: a name in `models.MODELS`.
      ecosystem: one of `ECOSYSTEMS`.
      params: our parameters or their shapes: they say how many blocks there are, and what is in each.

    Raises:
      ValueError: no checkpoint of `model` is known in `ecosystem`.
    """
    for family, namings in _FAMILIES.items():
        if model.startswith(family):
            if ecosystem not in namings:
                raise ValueError(f"{ecosystem} has no {model}; there are: {', '.join(namings)}")
            return list(namings[ecosystem](params))
    raise ValueError(f"there are no ImageNet weights for {model}, but for: {', '.join(_FAMILIES)} models")


def _blocks(params: dict[str, Any]) -> list[tuple[str, int, int]]:
    """(our name, stage, index within it) of the residual blocks; a stage is a run of one output width."""
    found, width, stage, index = [], None, -1, 0
    for number in range(sum(name.startswith("block_") for name in params)):
        name = f"block_{number}"
        out = params[name]["project"]["kernel"].shape[-1]
        stage, index = (stage, index + 1) if out == width else (stage + 1, 0)
        width = out
        found.append((name, stage, index))
    return found


def _ends(names: dict[str, str], *order: str) -> Iterator[Slot]:
    """The layers outside the blocks, by our name, which says their kind."""
    for ours in order:
        kind = "norm" if "norm" in ours else "dense" if ours in ("head", "hidden") else "conv"
        yield Slot((ours,), names[ours], kind)


def _inverted(block: str, params: dict[str, Any], names: dict[str, str]) -> Iterator[Slot]:
    """The layers that an inverted residual block has, each by its name under `names`."""
    for path, kind in _PARTS.items():
        if path[0] in params:
            yield Slot((block, *path), names[".".join(path)], kind)


def _torchvision_block(prefix: str, params: dict[str, Any], nested_project: bool) -> dict[str, str]:
    """Numbers count the groups that a block has; MobileNetV2 alone does not nest the last."""
    names, group = {}, 0
    if "expand" in params:
        names |= {"expand": f"{prefix}.{group}.0", "expand_norm": f"{prefix}.{group}.1"}
        group += 1
    names |= {"depthwise": f"{prefix}.{group}.0", "depthwise_norm": f"{prefix}.{group}.1"}
    group += 1
    if "squeeze" in params:
        names |= {"squeeze.reduce": f"{prefix}.{group}.fc1", "squeeze.expand": f"{prefix}.{group}.fc2"}
        group += 1
    if nested_project:
        return names | {"project": f"{prefix}.{group}.0", "project_norm": f"{prefix}.{group}.1"}
    return names | {"project": f"{prefix}.{group}", "project_norm": f"{prefix}.{group + 1}"}


def _timm_block(prefix: str, params: dict[str, Any]) -> dict[str, str]:
    names = {"squeeze.reduce": f"{prefix}.se.conv_reduce", "squeeze.expand": f"{prefix}.se.conv_expand"}
    if "expand" not in params:
        convolutions = {"depthwise": "conv_dw", "project": "conv_pw"}
    else:
        convolutions = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
    for number, (ours, theirs) in enumerate(convolutions.items(), 1):
        names |= {ours: f"{prefix}.{theirs}", f"{ours}_norm": f"{prefix}.bn{number}"}
    return names


def _torchvision_efficientnet(params):
    top = _blocks(params)[-1][1] + 2
    ends = {"stem": "features.0.0", "stem_norm": "features.0.1", "head": "classifier.1"}
    ends |= {"top": f"features.{top}.0", "top_norm": f"features.{top}.1"}
    yield from _ends(ends, "stem", "stem_norm")
    for name, stage, index in _blocks(params):
        names = _torchvision_block(f"features.{stage + 1}.{index}.block", params[name], True)
        yield from _inverted(name, params[name], names)
    yield from _ends(ends, "top", "top_norm", "head")


def _torchvision_mobilenet_v2(params):
    ends = {"stem": "features.0.0", "stem_norm": "features.0.1", "head": "classifier.1"}
    ends |= {"top": "features.18.0", "top_norm": "features.18.1"}
    yield from _ends(ends, "stem", "stem_norm")
    for number, (name, _, _) in enumerate(_blocks(params), 1):
        names = _torchvision_block(f"features.{number}.conv", params[name], False)
        yield from _inverted(name, params[name], names)
    yield from _ends(ends, "top", "top_norm", "head")


def _torchvision_mobilenet_v3(params):
    ends = {"stem": "features.0.0", "stem_norm": "features.0.1", "hidden": "classifier.0"}
    ends |= {"top": "features.12.0", "top_norm": "features.12.1", "head": "classifier.3"}
    yield from _ends(ends, "stem", "stem_norm")
    for number, (name, _, _) in enumerate(_blocks(params), 1):
        names = _torchvision_block(f"features.{number}.block", params[name], True)
        yield from _inverted(name, params[name], names)
    yield from _ends(ends, "top", "top_norm", "hidden", "head")


def _timm_inverted(params):
    ends = {"stem": "conv_stem", "stem_norm": "bn1", "top": "conv_head", "top_norm": "bn2"}
    ends |= {"head": "classifier"}
    last = ["top", "top_norm", "head"]
    if "hidden" in params:  # MobileNetV3 counts the top as one more stage
        ends |= {"top": "blocks.5.0.conv", "top_norm": "blocks.5.0.bn1", "hidden": "conv_head"}
        last = ["top", "top_norm", "hidden", "head"]
    yield from _ends(ends, "stem", "stem_norm")
    for name, stage, index in _blocks(params):
        yield from _inverted(name, params[name], _timm_block(f"blocks.{stage}.{index}", params[name]))
    yield from _ends(ends, *last)


def _keras_efficientnet(params):
    ends = {"stem": "stem_conv", "stem_norm": "stem_bn", "top": "top_conv", "top_norm": "top_bn"}
    ends |= {"head": "predictions"}
    suffixes = ("expand_conv", "expand_bn", "dwconv", "bn", "se_reduce", "se_expand")
    suffixes += ("project_conv", "project_bn")
    yield from _ends(ends, "stem", "stem_norm")
    for name, stage, index in _blocks(params):
        prefix = f"block{stage + 1}{chr(ord('a') + index)}_"
        yield from _inverted(name, params[name], _suffixed(prefix, suffixes))
    yield from _ends(ends, "top", "top_norm", "head")


def _keras_mobilenet_v2(params):
    ends = {"stem": "Conv1", "stem_norm": "bn_Conv1", "top": "Conv_1", "top_norm": "Conv_1_bn"}
    ends |= {"head": "predictions"}
    suffixes = ("expand", "expand_BN", "depthwise", "depthwise_BN", "", "", "project", "project_BN")
    yield from _ends(ends, "stem", "stem_norm")
    for number, (name, _, _) in enumerate(_blocks(params)):
        prefix = f"block_{number}_" if number else "expanded_conv_"
        yield from _inverted(name, params[name], _suffixed(prefix, suffixes))
    yield from _ends(ends, "top", "top_norm", "head")


def _keras_mobilenet_v3(params):
    ends = {"stem": "conv", "stem_norm": "conv_bn", "top": "conv_1", "top_norm": "conv_1_bn"}
    ends |= {"hidden": "conv_2", "head": "logits"}
    suffixes = ("expand", "expand_bn", "depthwise", "depthwise_bn", "squeeze_excite_conv")
    suffixes += ("squeeze_excite_conv_1", "project", "project_bn")
    yield from _ends(ends, "stem", "stem_norm")
    for number, (name, _, _) in enumerate(_blocks(params)):
        prefix = f"expanded_conv_{number}_" if number else "expanded_conv_"
        yield from _inverted(name, params[name], _suffixed(prefix, suffixes))
    yield from _ends(ends, "top", "top_norm", "hidden", "head")


def _suffixed(prefix: str, suffixes: tuple[str, ...]) -> dict[str, str]:
    return {".".join(path): prefix + suffix for path, suffix in zip(_PARTS, suffixes, strict=True)}


def _torch_resnet(params):
    yield from _ends({"stem": "conv1", "stem_norm": "bn1"}, "stem", "stem_norm")
    for number in range(8):
        ours, prefix = f"block_{number}", f"layer{number // 2 + 1}.{number % 2}"
        names = {"conv_0": "conv1", "norm_0": "bn1", "conv_1": "conv2", "norm_1": "bn2"}
        names |= {"project": "downsample.0", "project_norm": "downsample.1"}
        for layer, theirs in names.items():
            if layer in params[ours]:
                yield Slot((ours, layer), f"{prefix}.{theirs}", "norm" if "norm" in layer else "conv")
    yield from _ends({"head": "fc"}, "head")


def _vgg(params, names: dict[str, str]) -> Iterator[Slot]:
    """VGG's layers where the `features` of torch are numbered: convolution, BatchNorm, ReLU, pooling."""
    number, step = 0, 3 if "norm_0" in params else 2
    for index in range(13):
        yield Slot((f"conv_{index}",), f"features.{number}", "conv")
        if "norm_0" in params:
            yield Slot((f"norm_{index}",), f"features.{number + 1}", "norm")
        number += step + (index in (1, 3, 6, 9, 12))
    for ours, theirs in names.items():
        if ours in params:
            yield Slot((ours,), theirs, "dense")


def _torchvision_vgg(params):
    return _vgg(params, {"hidden_0": "classifier.0", "hidden_1": "classifier.3", "head": "classifier.6"})


def _timm_vgg(params):
    return _vgg(params, {"hidden_0": "pre_logits.fc1", "hidden_1": "pre_logits.fc2", "head": "head.fc"})


def _keras_vgg(params):
    blocks = [f"block{b}_conv{c}" for b, count in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, count + 1)]
    for index, name in enumerate(blocks):
        yield Slot((f"conv_{index}",), name, "conv")
    for ours, theirs in {"hidden_0": "fc1", "hidden_1": "fc2", "head": "predictions"}.items():
        if ours in params:
            yield Slot((ours,), theirs, "dense")


_FAMILIES = {
    "efficientnet_lite": {"timm_tf": _timm_inverted},
    "efficientnet": {
        "torchvision": _torchvision_efficientnet,
        "timm": _timm_inverted,
        "timm_tf": _timm_inverted,
        "keras": _keras_efficientnet,
    },
    "mobilenet_v2": {
        "torchvision": _torchvision_mobilenet_v2,
        "timm": _timm_inverted,
        "keras": _keras_mobilenet_v2,
    },
    "mobilenet_v3": {
        "torchvision": _torchvision_mobilenet_v3,
        "timm": _timm_inverted,
        "keras": _keras_mobilenet_v3,
    },
    "resnet18": {"torchvision": _torch_resnet, "timm": _torch_resnet},
    "vgg16_bn": {"torchvision": _torchvision_vgg, "timm": _timm_vgg},
    "vgg16": {"torchvision": _torchvision_vgg, "timm": _timm_vgg, "keras": _keras_vgg},
}
