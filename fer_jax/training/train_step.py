"""Defines the training step, a pure function of arrays for any number of devices."""

from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from fer_jax.data.preprocessing import Preprocessing
from fer_jax.training import stages
from fer_jax.training.state import TrainState

Batch = dict[str, jax.Array]
Metrics = dict[str, jax.Array]


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    loss_fn: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    *,
    ema_decay: float = 0.0,
    sharpness_radius: float = 0.0,
    accumulate: int = 1,
    trained: Collection[stages.Path] | None = None,
    teacher_loss: Callable[[jax.Array, Any, Batch], tuple[jax.Array, jax.Array]] | None = None,
    teacher_weight: float = 0.0,
    axis_name: str | None = None,
    **preprocess: Any,
) -> Callable[..., tuple[TrainState, Metrics]]:
    """Returns the training step, a pure function of (state, batch) or (state, batch, teachers).

    Args:
      model: the network; its BatchNorm must average over the same `axis_name`.
      tx: the optimizer.
      loss_fn: (logits [B, K], targets [B, K]) -> (sum, normalizer), see `losses.cross_entropy`.
      ema_decay: decay of the EMA; 0 if the state has none. The first updates use
        min(ema_decay, (1 + n) / (10 + n)), so that the average forgets the initial weights.
      sharpness_radius: radius of sharpness-aware minimization (Foret et al. 2021, arXiv:2010.01412), which
        evaluates the gradient at the approximate maximum of the loss within this distance, at the cost of a
        second pass; 0 disables it. The reported loss and accuracy are at that point.
      accumulate: steps per update of `tx`; the EMA counts updates, not steps.
      trained: trained layers, None for all; the others need no gradient, and the optimizer state covers only
        the trained parameters, see `stages.partition`.
      teacher_loss: (logits [B, K], teachers' variables, batch) -> (sum, normalizer), the loss against the
        teachers (`Distillation.loss`); the step then also takes their variables.
      teacher_weight: weight of the teacher loss, in [0, 1].
      axis_name: mapped axis (`pmap`) of the batch, or None if the step sees the global batch (`jit`).
      **preprocess: attributes of `Preprocessing`.

    Returns:
      A function that maps a state and a batch from `data.pipeline.TrainStream` to the new state and float32
      scalars over the global batch: loss, accuracy (against the argmax of the target), grad_norm, and
      param_norm.
    """

    prepare = Preprocessing(**preprocess)

    def total(tree):
        return tree if axis_name is None else jax.lax.psum(tree, axis_name)

    def train_step(state: TrainState, batch: Batch, teachers: Any = None) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(jax.random.wrap_key_data(state.rng), state.step)
        if axis_name is not None:
            rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))
        x, targets = prepare.augmented(batch)
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
            # The normalizer does not depend on the parameters. Dividing by its sum gives each device its part
            # of the global loss; gradients are summed below.
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
            # MultiSteps counts from the start of the stage, which may not be a multiple of `accumulate`.
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
    """Updates the EMA; unchanged between updates with accumulated gradients."""
    decay = jnp.minimum(decay, (1.0 + updates) / (10.0 + updates))
    decay = jnp.where(is_update, decay, 1.0)
    # In this form, unchanged values stay bitwise equal.
    return jax.tree.map(lambda old, value: old + (1.0 - decay) * (value - old), ema, new)
