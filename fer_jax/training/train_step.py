"""The training step and the forward pass: pure functions of arrays, the same on one device and on many."""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fer_jax.data import augment
from fer_jax.training import stages
from fer_jax.training.state import TrainState

if TYPE_CHECKING:
    from fer_jax.training.distillation import Distillation

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]
Levels = float | Sequence[float]  # pixel statistics in [0, 1], of all channels or one for each


def normalize(x: jnp.ndarray, mean: Levels, std: Levels, channels: int) -> jnp.ndarray:
    """Faces float32 [B, S, S, C] in [0, 1] -> (x - mean) / std; grey is repeated to `channels` channels."""
    if x.shape[-1] != channels:
        if x.shape[-1] != 1:
            raise ValueError(
                f"the faces have {x.shape[-1]} channels and the model takes {channels}: "
                "set config.model.channels=3 or use grey data"
            )
        x = jnp.repeat(x, channels, axis=-1)
    return (x - np.float32(mean)) / np.float32(std)


def make_input(
    *,
    size: int,
    mean: Levels,
    std: Levels,
    channels: int,
    fill: str = "reflect",
    interpolation: str = "bilinear",
) -> Callable[[jax.Array, jax.Array | None], jax.Array]:
    """What an evaluation makes of faces before the network.

    prepare(images uint8 [B, H, W, C], affine float32 [B, 2, 3] or None for all of each image) -> float32
    [B, size, size, channels].

    Args:
      size: of the network's input.
      mean, std: pixel statistics in [0, 1] that normalise it.
      channels: of it.
      fill: what lies outside the image where the map reaches there.
      interpolation: as `augment.resample` takes it.
    """

    def prepare(images, affine):
        if affine is None and images.shape[1:3] == (size, size):
            return normalize(images * augment.PIXEL, mean, std, channels)
        if affine is None:
            affine = augment.identity_affine(len(images))
        x = augment.resample(images, affine, size, fill, np.mean(mean), interpolation)
        return normalize(x, mean, std, channels)

    return prepare


def make_forward(
    model: nn.Module, **normalization: Any
) -> Callable[[Any, jax.Array, jax.Array | None], jax.Array]:
    """The evaluation pass of a network; `normalization` are the arguments of `make_input`.

    Products of float32 are of float32 on a GPU and a TPU too, whose default is to round the factors.

    forward(variables, images uint8 [B, H, W, C], affine float32 [B, 2, 3] or None) -> logits float32 [B, K].
    """
    prepare = make_input(**normalization)

    # A CPU has no other, and its convolutions of this project take no such wish.
    precision = None if jax.default_backend() == "cpu" else "highest"

    def forward(variables, images, affine):
        with jax.default_matmul_precision(precision):
            return model.apply(variables, prepare(images, affine), train=False)

    return forward


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    loss_fn: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    *,
    size: int,
    mean: Levels,
    std: Levels,
    channels: int,
    fill: str = "reflect",
    interpolation: str = "bilinear",
    ema_decay: float = 0.0,
    sharpness_radius: float = 0.0,
    accumulate: int = 1,
    trained: Collection[stages.Path] | None = None,
    distillation: "Distillation | None" = None,
    axis_name: str | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """One update as a pure function of (state, batch), or of (state, batch, teachers).

    Args:
      model: the network; its BatchNorm must average over the same `axis_name`.
      tx: the optimizer.
      loss_fn: (logits [B, K], targets [B, K]) -> (sum, normaliser), see `losses.cross_entropy`.
      size: input size that the faces are drawn at.
      mean, std: pixel statistics in [0, 1] that normalise the input.
      channels: of the input.
      fill: what lies outside the image where the augmentation reaches there.
      interpolation: as `augment.resample` takes it.
      ema_decay: of the averaged parameters and statistics; 0 when the state keeps none. The first updates
        use min(ema_decay, (1 + n) / (10 + n)) so that the average forgets the random start.
      sharpness_radius: of sharpness-aware minimisation (Foret et al. 2021, arXiv:2010.01412): the gradient is
        taken where the loss is largest within this distance, to first order, which costs a second pass; 0
        for the plain gradient. The loss and accuracy told are those of that place.
      accumulate: steps an update of `tx` takes; the average follows updates, not steps.
      trained: the layers that train, None for all; the others cost no gradient, and the optimizer's state is
        that of the parameters in these, see `stages.partition`.
      distillation: teachers that share the loss with the labels; the step takes their `variables` as well.
      axis_name: the mapped axis (`pmap`) that the batch is spread over, or None when the step sees the
        whole batch (`jit`, on one device or over a mesh).

    Returns:
      A function of the state and a batch of `data.pipeline.TrainStream` that gives the new state and float32
      scalars over the global batch: loss, accuracy (against the argmax of the target), grad_norm,
      param_norm.
    """

    def total(tree):
        return tree if axis_name is None else jax.lax.psum(tree, axis_name)

    def train_step(state: TrainState, batch: Batch, teachers: Any = None) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        if axis_name is not None:
            rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))
        x, targets = augment.apply(batch, size, fill, np.mean(mean), interpolation)
        x = normalize(x, mean, std, channels)

        free, fixed = stages.partition(state.params, trained)

        def objective(free):
            logits, updated = model.apply(
                {"params": stages.merge(free, fixed), "batch_stats": state.batch_stats},
                x,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": rng},
            )
            loss_sum, count = loss_fn(logits, targets)
            # The normaliser is data, not a function of the parameters: adding it up here leaves each device
            # with its part of the global loss, and the gradients add up below.
            loss = loss_sum / total(count)
            if distillation is not None:
                taught_sum, count = distillation.loss(logits, teachers, batch)
                loss += distillation.weight * (taught_sum / total(count) - loss)
            return loss, (logits, updated.get("batch_stats", {}))

        place = free
        if sharpness_radius:
            ascent = total(jax.grad(objective, has_aux=True)(free)[0])
            reach = sharpness_radius / (optax.global_norm(ascent) + 1e-12)
            place = jax.tree.map(lambda p, g: p + reach * g, free, ascent)
        (loss, (logits, batch_stats)), grads = jax.value_and_grad(objective, has_aux=True)(place)
        loss, grads = total((loss, grads))
        updates, opt_state = tx.update(grads, state.opt_state, free)
        updates = jax.tree.map(lambda u: u * state.lr_scale, updates)
        params = stages.merge(optax.apply_updates(free, updates), fixed)
        ema = state.ema
        if ema_decay:
            new = {"params": params, "batch_stats": batch_stats}
            # MultiSteps counts from its stage's start, which need not be a multiple of `accumulate`.
            is_update = True if accumulate == 1 else opt_state.mini_step == 0
            ema = _average(ema, new, (state.step + 1) // accumulate, ema_decay, is_update)
        correct = jnp.argmax(logits, -1) == jnp.argmax(targets, -1)
        hits, seen = total((correct.sum(), jnp.float32(correct.size)))
        metrics = {
            "loss": loss,
            "accuracy": hits / seen,
            "grad_norm": optax.global_norm(grads),
            "param_norm": optax.global_norm(params),
        }
        state = state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
            ema=ema,
        )
        return state, metrics

    return train_step


def _average(ema: Any, new: Any, updates: jax.Array, decay: float, is_update: jax.Array | bool) -> Any:
    """The exponential average after a step; unchanged between the updates of an accumulated gradient."""
    decay = jnp.minimum(decay, (1.0 + updates) / (10.0 + updates))
    decay = jnp.where(is_update, decay, 1.0)
    # In this form what does not change stays as it is, to the bit.
    return jax.tree.map(lambda old, value: old + (1.0 - decay) * (value - old), ema, new)
