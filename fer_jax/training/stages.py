"""Staged fine-tuning: which layers are trained, and which BatchNorm layers are frozen."""

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
    """The config of a stage.

    Attributes:
      epochs: number of epochs, possibly fractional.
      train: 'all'; 'head', the classifier; or 'blocks' or 'layers', the `last` ones and the head. Layers
        without initial weights are trained with the head.
      learning_rate: peak of the schedule, which restarts in each stage, as does the optimizer.
      last: number of blocks or layers. A layer has parameters (convolution, BatchNorm, dense); a block is a
        named part of the network, and a BatchNorm belongs to the block before it.
      batch_norm: which BatchNorm layers use batch statistics and update their running statistics: trained
        ones ('trained'), none ('frozen'), or all ('running').
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
                f"train={self.train!r} with last={self.last} in a stage: 'blocks' and 'layers' need last, "
                "the others must not have it"
            )


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stage of a run, ready to train.

    Attributes:
      start, end: first step, and first step after the stage.
      trained: trained layers, None for all.
      frozen: layers whose BatchNorm uses running statistics.
      learning_rate: learning rate by update number in the stage.
      tx: optimizer of the trained parameters.
    """

    start: int
    end: int
    trained: frozenset[Path] | None
    frozen: tuple[Path, ...]
    learning_rate: optax.Schedule
    tx: optax.GradientTransformation


def blocks(model: nn.Module, input_shape: Sequence[int]) -> list[list[Path]]:
    """Returns the paths of layers with parameters by block, in the order of the data, for faces (S, S, C)."""
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
    """Returns the trained layers of a stage, None for all. The head is the last layer.

    Layers in `new`, without initial weights, are trained with the head.

    Raises:
      ValueError: the network has fewer blocks or layers than `stage.last`.
    """
    if stage.train == "all":
        return None
    order = [path for block in blocks for path in block]
    if stage.train == "head":
        return frozenset(order[-1:]) | frozenset(new)
    units = blocks if stage.train == "blocks" else [[path] for path in order]
    if stage.last >= len(units):
        raise ValueError(
            f"a stage trains the last {stage.last} {stage.train}, but the model has {len(units) - 1} before "
            "its head: use train='all'"
        )
    return frozenset(path for unit in units[-1 - stage.last :] for path in unit) | frozenset(new)


def frozen_layers(
    stage: StageConfig, blocks: Sequence[Sequence[Path]], trained: frozenset[Path] | None
) -> tuple[Path, ...]:
    """Returns the layers whose BatchNorm uses running statistics; as in Keras, also the untrained ones."""
    layers = tuple(path for block in blocks for path in block)
    if stage.batch_norm == "frozen":
        return layers
    if stage.batch_norm == "running" or trained is None:
        return ()
    return tuple(path for path in layers if path not in trained)


def layer_factors(
    blocks: Sequence[Sequence[Path]], decay: float, new: Collection[Path] = ()
) -> dict[Path, float]:
    """Returns factors on the learning rate: `decay` to the number of blocks between a layer and the head.

    Layers in `new`, without initial weights, have the full learning rate. This is layer-wise decay, as for
    fine-tuning transformers (Clark et al. 2020, arXiv:2003.10555).
    """
    depth = len(blocks) - 1
    factors = {path: decay ** (depth - i) for i, block in enumerate(blocks) for path in block}
    return factors | dict.fromkeys(new, 1.0)


def partition(params: Any, trained: Collection[Path] | None) -> tuple[Any, Any]:
    """Splits parameters into trees (of trained layers, of frozen layers); `merge` joins them."""
    if trained is None:
        return params, {}
    flat = traverse_util.flatten_dict(params)
    free = {path: value for path, value in flat.items() if path[:-1] in trained}
    fixed = {path: value for path, value in flat.items() if path[:-1] not in trained}
    return traverse_util.unflatten_dict(free), traverse_util.unflatten_dict(fixed)


def merge(free: Any, fixed: Any) -> Any:
    """Joins the trees of `partition`."""
    if not fixed:
        return free
    return traverse_util.unflatten_dict(traverse_util.flatten_dict(free) | traverse_util.flatten_dict(fixed))
