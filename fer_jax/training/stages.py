"""Staged fine-tuning: which layers train when, at which rate, and which BatchNorm is frozen."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

SCOPES = ("all", "head", "blocks", "layers")
STATISTICS = ("trained", "frozen", "running")

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """A stage as a config describes it.

    Attributes:
      epochs: how long; a fraction is fine.
      train: 'all'; 'head', the classifier; or the `last` 'blocks' or 'layers' before it, and the head. Layers
        without initial weights train with the head.
      learning_rate: peak of the stage's schedule, which restarts with it, as the optimizer does.
      last: their number. A layer has parameters (convolution, BatchNorm, dense); a block is a named part of
        the network, and a BatchNorm belongs to the block before it.
      batch_norm: which BatchNorm layers use batch statistics; the others use their running ones:
        those that train ('trained'), none ('frozen') or all ('running').
    """

    epochs: float
    train: str = "all"
    learning_rate: float = 1e-3
    last: int = 0
    batch_norm: str = "trained"

    def __post_init__(self):
        for name, value, known in (
            ("train", self.train, SCOPES),
            ("batch_norm", self.batch_norm, STATISTICS),
        ):
            if value not in known:
                raise ValueError(f"{name}={value!r} in a stage; there are: {', '.join(known)}")
        if self.epochs <= 0:
            raise ValueError(f"epochs={self.epochs} in a stage; expected more than 0")
        if self.learning_rate < 0:
            raise ValueError(f"learning_rate={self.learning_rate} in a stage; expected 0 or more")
        if (self.train in ("blocks", "layers")) != (self.last > 0):
            raise ValueError(
                f"train={self.train!r} with last={self.last} in a stage: 'blocks' and 'layers' need how "
                "many, the others take none"
            )


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of a run, ready to train.

    Attributes:
      start, end: its first step, and the first one after it.
      trained: the layers that train, None for all.
      frozen: the layers that keep their running statistics where they are BatchNorm.
      learning_rate: by the number of the update within the stage.
      tx: the optimizer of the parameters that train.
    """

    start: int
    end: int
    trained: frozenset[Path] | None
    frozen: tuple[Path, ...]
    learning_rate: optax.Schedule
    tx: optax.GradientTransformation


def blocks(model: nn.Module, input_shape: Sequence[int]) -> list[list[Path]]:
    """Returns the paths of the layers with parameters, in the order of the data, by block.

    Args:
      model: the network; `model(x)` takes float32 [1, S, S, C].
      input_shape: (S, S, C).
    """
    called: list[Path] = []

    def note(next_function, args, kwargs, context):
        called.append(context.module.path)
        return next_function(*args, **kwargs)

    with nn.intercept_methods(note):
        face = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
        shapes = jax.eval_shape(model.init, jax.random.key(0), face)
    names = traverse_util.flatten_dict(shapes["params"])
    layers, norms = {path[:-1] for path in names}, {path[:-1] for path in names if path[-1] == "scale"}
    found: list[list[Path]] = []
    for path in dict.fromkeys(path for path in called if path in layers):
        belongs = found and (path[0] == found[-1][-1][0] or (len(path) == 1 and path in norms))
        if belongs:
            found[-1].append(path)
        else:
            found.append([path])
    return found


def trained_layers(
    stage: StageConfig, blocks: Sequence[Sequence[Path]], new: Collection[Path] = ()
) -> frozenset[Path] | None:
    """Returns the layers that train in a stage, None for all. The head is the last layer.

    Args:
      stage: the stage.
      blocks: as the function of this name returns them.
      new: layers without initial weights besides the head, which train whenever it does.

    Raises:
      ValueError: the network has fewer blocks or layers than the stage trains.
    """
    if stage.train == "all":
        return None
    order = [path for block in blocks for path in block]
    if stage.train == "head":
        return frozenset(order[-1:]) | frozenset(new)
    units = blocks if stage.train == "blocks" else [[path] for path in order]
    if stage.last >= len(units):
        raise ValueError(
            f"a stage trains the last {stage.last} {stage.train}, and the model has {len(units) - 1} before "
            "its head: use train='all'"
        )
    return frozenset(path for unit in units[-1 - stage.last :] for path in unit) | frozenset(new)


def frozen_layers(
    stage: StageConfig, blocks: Sequence[Sequence[Path]], trained: frozenset[Path] | None
) -> tuple[Path, ...]:
    """Returns the layers that keep their statistics where they are BatchNorm.

    As in Keras, a BatchNorm that does not train does not use batch statistics either.
    """
    layers = tuple(path for block in blocks for path in block)
    if stage.batch_norm == "frozen":
        return layers
    if stage.batch_norm == "running" or trained is None:
        return ()
    return tuple(path for path in layers if path not in trained)


def layer_factors(
    blocks: Sequence[Sequence[Path]], decay: float, new: Collection[Path] = ()
) -> dict[Path, float]:
    """Returns factors on the learning rate: `decay` to the number of blocks between a layer's and the head.

    The layers in `new`, which have no initial weights, have the full rate.
    Layer-wise decay as for fine-tuning transformers (Clark et al. 2020, arXiv:2003.10555).
    """
    depth = len(blocks) - 1
    factors = {path: decay ** (depth - i) for i, block in enumerate(blocks) for path in block}
    return factors | dict.fromkeys(new, 1.0)


def partition(params: Any, trained: Collection[Path] | None) -> tuple[Any, Any]:
    """Returns the parameters of the layers that train, and the others, as trees; `merge` joins them."""
    if trained is None:
        return params, {}
    flat = traverse_util.flatten_dict(params)
    free = {path: value for path, value in flat.items() if path[:-1] in trained}
    fixed = {path: value for path, value in flat.items() if path[:-1] not in trained}
    return traverse_util.unflatten_dict(free), traverse_util.unflatten_dict(fixed)


def merge(free: Any, fixed: Any) -> Any:
    """Returns the tree that `partition` split."""
    if not fixed:
        return free
    return traverse_util.unflatten_dict(traverse_util.flatten_dict(free) | traverse_util.flatten_dict(fixed))
