"""Maps our layers to their names in checkpoints of torchvision, timm, and Keras."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

# timm_tf: TensorFlow's weights, ported by timm, with timm's names and TensorFlow's conventions.
ECOSYSTEMS = ("torchvision", "timm", "timm_tf", "keras")
# The layers of an inverted residual block.
_PARTS = ("expand", "expand_norm", "depthwise", "depthwise_norm", "squeeze.reduce", "squeeze.expand")
_PARTS += ("project", "project_norm")

Names = dict[str, str]  # names in another library by our names


@dataclasses.dataclass(frozen=True)
class Slot:
    """One layer with parameters."""

    path: tuple[str, ...]  # ours, from the root of the tree
    name: str  # in the other library, without suffixes such as `.weight`

    @property
    def kind(self) -> str:
        """'conv', 'depthwise', 'dense', or 'norm'."""
        if "norm" in self.path[-1]:
            return "norm"
        if self.path[0].startswith(("head", "hidden")) or "squeeze" in self.path:
            return "dense"
        return "depthwise" if self.path[-1] == "depthwise" else "conv"


def slots(model: str, ecosystem: str, params: dict[str, Any]) -> list[Slot]:
    """Returns the layers of a model in the order of the data, in which Keras numbers them.

    Our parameters or their shapes determine the blocks.

    Raises:
      ValueError: `ecosystem` has no checkpoint of `model`.
    """
    for family, ecosystems in _FAMILIES.items():
        if model.startswith(family):
            if ecosystem not in ecosystems:
                raise ValueError(f"{ecosystem} has no {model}; expected one of: {', '.join(ecosystems)}")
            return list(ecosystems[ecosystem](params))
    raise ValueError(f"there are no ImageNet weights for {model}, only for {', '.join(_FAMILIES)} models")


def _slots(names: Names, *prefix: str) -> Iterator[Slot]:
    for ours, theirs in names.items():
        yield Slot((*prefix, *ours.split(".")), theirs)


# -------------------- networks of inverted residual blocks --------------------


def _inverted(
    params: dict[str, Any], ends: Names, name_block: Callable[[dict[str, Any], int, int, int], Names]
) -> Iterator[Slot]:
    """Yields the layers of a network.

    Args:
      params: our parameters.
      ends: names of the layers outside the blocks.
      name_block: (parameters of a block, its number, its stage, its index within the stage) -> names of its
        layers. A stage is a sequence of blocks with the same output width.
    """
    yield from _slots({ours: ends[ours] for ours in ("stem", "stem_norm")})
    width, stage, index = None, -1, 0
    for number in range(sum(name.startswith("block_") for name in params)):
        block = params[f"block_{number}"]
        out = block["project"]["kernel"].shape[-1]
        stage, index = (stage, index + 1) if out == width else (stage + 1, 0)
        width = out
        names = name_block(block, number, stage, index)
        yield from _slots(
            {part: names[part] for part in _PARTS if part.split(".")[0] in block}, f"block_{number}"
        )
    yield from _slots({ours: ends[ours] for ours in ("top", "top_norm", "hidden", "head") if ours in ends})


def _torchvision_ends(top: int, **dense: str) -> Names:
    ends = {"stem": "features.0.0", "stem_norm": "features.0.1"}
    return ends | {"top": f"features.{top}.0", "top_norm": f"features.{top}.1"} | dense


def _torchvision_block(prefix: str, params: dict[str, Any], nested_project: bool = True) -> Names:
    """Numbers the groups in a block; only MobileNetV2 does not nest the last."""
    names, group = {}, 0
    for part in ("expand", "depthwise", "squeeze"):
        if part not in params:
            continue
        if part == "squeeze":
            names |= {"squeeze.reduce": f"{prefix}.{group}.fc1", "squeeze.expand": f"{prefix}.{group}.fc2"}
        else:
            names |= {part: f"{prefix}.{group}.0", f"{part}_norm": f"{prefix}.{group}.1"}
        group += 1
    project = (f"{group}.0", f"{group}.1") if nested_project else (group, group + 1)
    return names | {"project": f"{prefix}.{project[0]}", "project_norm": f"{prefix}.{project[1]}"}


def _torchvision_efficientnet(params):
    widths = {block["project"]["kernel"].shape[-1] for name, block in params.items() if "block" in name}
    ends = _torchvision_ends(len(widths) + 1, head="classifier.1")
    return _inverted(
        params,
        ends,
        lambda block, _, stage, index: _torchvision_block(f"features.{stage + 1}.{index}.block", block),
    )


def _torchvision_mobilenet_v2(params):
    return _inverted(
        params,
        _torchvision_ends(18, head="classifier.1"),
        lambda block, number, *_: _torchvision_block(f"features.{number + 1}.conv", block, False),
    )


def _torchvision_mobilenet_v3(params):
    return _inverted(
        params,
        _torchvision_ends(12, hidden="classifier.0", head="classifier.3"),
        lambda block, number, *_: _torchvision_block(f"features.{number + 1}.block", block),
    )


def _timm_block(block: dict[str, Any], _: int, stage: int, index: int) -> Names:
    prefix = f"blocks.{stage}.{index}"
    names = {"squeeze.reduce": f"{prefix}.se.conv_reduce", "squeeze.expand": f"{prefix}.se.conv_expand"}
    convolutions = {"depthwise": "conv_dw", "project": "conv_pw"}
    if "expand" in block:
        convolutions = {"expand": "conv_pw", "depthwise": "conv_dw", "project": "conv_pwl"}
    for number, (ours, theirs) in enumerate(convolutions.items(), 1):
        names |= {ours: f"{prefix}.{theirs}", f"{ours}_norm": f"{prefix}.bn{number}"}
    return names


def _timm_inverted(params):
    ends = {"stem": "conv_stem", "stem_norm": "bn1", "top": "conv_head", "top_norm": "bn2"}
    if "hidden" in params:  # in MobileNetV3 the top is another stage
        ends |= {"top": "blocks.5.0.conv", "top_norm": "blocks.5.0.bn1", "hidden": "conv_head"}
    return _inverted(params, ends | {"head": "classifier"}, _timm_block)


def _keras(
    ends: str, suffixes: str, prefix: Callable[[int, int, int], str]
) -> Callable[[dict[str, Any]], Iterator[Slot]]:
    """Returns the function that names the layers of a Keras network.

    Args:
      ends: names of stem, stem_norm, top, top_norm, (hidden,) head.
      suffixes: of a block's layers, in the order of `_PARTS`.
      prefix: (a block's number, stage, index within the stage) -> what its layers' names begin with.
    """
    outside = ("stem", "stem_norm", "top", "top_norm", *(["hidden"] if len(ends.split()) > 5 else []), "head")
    names = dict(zip(outside, ends.split(), strict=True))
    parts = dict(zip(_PARTS, suffixes.split(), strict=True))

    def name_block(_: dict[str, Any], *place: int) -> Names:
        return {part: prefix(*place) + suffix for part, suffix in parts.items()}

    return lambda params: _inverted(params, names, name_block)


_keras_efficientnet = _keras(
    "stem_conv stem_bn top_conv top_bn predictions",
    "expand_conv expand_bn dwconv bn se_reduce se_expand project_conv project_bn",
    lambda _, stage, index: f"block{stage + 1}{chr(ord('a') + index)}_",
)
_keras_mobilenet_v2 = _keras(
    "Conv1 bn_Conv1 Conv_1 Conv_1_bn predictions",
    "expand expand_BN depthwise depthwise_BN - - project project_BN",
    lambda number, *_: f"block_{number}_" if number else "expanded_conv_",
)
_keras_mobilenet_v3 = _keras(
    "conv conv_bn conv_1 conv_1_bn conv_2 logits",
    "expand expand_bn depthwise depthwise_bn squeeze_excite_conv squeeze_excite_conv_1 project project_bn",
    lambda number, *_: f"expanded_conv_{number}_" if number else "expanded_conv_",
)


# -------------------- the others --------------------


def _torch_resnet(params):
    yield from _slots({"stem": "conv1", "stem_norm": "bn1"})
    theirs = {"conv_0": "conv1", "norm_0": "bn1", "conv_1": "conv2", "norm_1": "bn2"}
    theirs |= {"project": "downsample.0", "project_norm": "downsample.1"}
    for number in range(8):
        block, prefix = f"block_{number}", f"layer{number // 2 + 1}.{number % 2}"
        yield from _slots({o: f"{prefix}.{t}" for o, t in theirs.items() if o in params[block]}, block)
    yield from _slots({"head": "fc"})


def _vgg(params: dict[str, Any], names: Names) -> Iterator[Slot]:
    """Yields VGG's layers; torch numbers its `features`: convolution, BatchNorm, ReLU, pooling."""
    number, features = 0, {}
    for index in range(13):
        features[f"conv_{index}"] = f"features.{number}"
        features[f"norm_{index}"] = f"features.{number + 1}"
        number += (3 if "norm_0" in params else 2) + (index in (1, 3, 6, 9, 12))
    yield from _slots({ours: theirs for ours, theirs in (features | names).items() if ours in params})


def _torchvision_vgg(params):
    return _vgg(params, {"hidden_0": "classifier.0", "hidden_1": "classifier.3", "head": "classifier.6"})


def _timm_vgg(params):
    return _vgg(params, {"hidden_0": "pre_logits.fc1", "hidden_1": "pre_logits.fc2", "head": "head.fc"})


def _keras_vgg(params):
    blocks = [f"block{b}_conv{c}" for b, count in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, count + 1)]
    names = {f"conv_{index}": name for index, name in enumerate(blocks)}
    return _vgg(params, names | {"hidden_0": "fc1", "hidden_1": "fc2", "head": "predictions"})


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
