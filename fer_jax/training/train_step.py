"""The training step: a pure function of arrays, the same on one device and on many."""

from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fer_jax.data import transforms
from fer_jax.data.preprocessing import Levels, normalize
from fer_jax.training import stages
from fer_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


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
    teacher_loss: Callable[[jax.Array, Any, Batch], tuple[jax.Array, jax.Array]] | None = None,
    teacher_weight: float = 0.0,
    axis_name: str | None = None,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Returns one update as a pure function of (state, batch), or of (state, batch, teachers).

    Args:
      model: the network; its BatchNorm must average over the same `axis_name`.
      tx: the optimizer.
      loss_fn: (logits [B, K], targets [B, K]) -> (sum, normalizer), see `losses.cross_entropy`.
      size: input size that the faces are drawn at.
      mean, std: pixel statistics in [0, 1] that normalize the input.
      channels: of the input.
      fill: the values outside the image.
      interpolation: as `transforms.resample` takes it.
      ema_decay: of the averaged parameters and statistics; 0 when the state keeps none. The first updates
        use min(ema_decay, (1 + n) / (10 + n)) so that the average forgets the random start.
      sharpness_radius: of sharpness-aware minimization (Foret et al. 2021, arXiv:2010.01412): the gradient is
        taken where the loss is largest within this distance, to first order, which costs a second pass; 0
        for the plain gradient. The reported loss and accuracy are those of that point.
      accumulate: steps per update of `tx`; the average counts updates, not steps.
      trained: the layers that train, None for all; the others cost no gradient, and the optimizer's state is
        that of the parameters in these, see `stages.partition`.
      teacher_loss: (logits [B, K], the teachers' variables, batch) -> (sum, normalizer), the loss
        against the teachers' answers (`Distillation.loss`); the step takes their variables as well.
      teacher_weight: of its part in the loss, in [0, 1].
      axis_name: the mapped axis (`pmap`) that the batch is spread over, or None when the step sees the
        whole batch (`jit`, on one device or over a mesh).

    Returns:
      A function that maps a state and a batch of `data.pipeline.TrainStream` to the new state and float32
      scalars over the global batch: loss, accuracy (against the argmax of the target), grad_norm,
      param_norm.
    """

    def total(tree):
        return tree if axis_name is None else jax.lax.psum(tree, axis_name)

    def train_step(state: TrainState, batch: Batch, teachers: Any = None) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        if axis_name is not None:
            rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))
        x, targets = transforms.apply(batch, size, fill, np.mean(mean), interpolation)
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
            # The normalizer does not depend on the parameters: summed here, it leaves each device with its
            # part of the global loss, and the gradients are summed below.
            loss = loss_sum / total(count)
            if teacher_loss is not None:
                taught_sum, count = teacher_loss(logits, teachers, batch)
                loss += teacher_weight * (taught_sum / total(count) - loss)
            return loss, (logits, updated.get("batch_stats", {}))

        place = free
        if sharpness_radius:
            ascent = total(jax.grad(objective, has_aux=True)(free)[0])
            reach = sharpness_radius / (optax.global_norm(ascent) + 1e-12)
            place = jax.tree.map(lambda p, g: p + reach * g, free, ascent)
        (loss, (logits, batch_stats)), grads = jax.value_and_grad(objective, has_aux=True)(place)
        loss, grads = total((loss, grads))
        opt_state: Any
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


def _average(ema: Any, new: Any, updates: jax.Array, decay: jax.typing.ArrayLike, is_update: Any) -> Any:
    """Returns the exponential average after a step; unchanged between updates of accumulated gradients."""
    decay = jnp.minimum(decay, (1.0 + updates) / (10.0 + updates))
    decay = jnp.where(is_update, decay, 1.0)
    # In this form what does not change stays bitwise the same.
    return jax.tree.map(lambda old, value: old + (1.0 - decay) * (value - old), ema, new)
