"""Optimizers, learning-rate schedules, and the tracker of the selection metric."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import optax
from flax import traverse_util

OPTIMIZERS = ("sgd", "adam", "adamw", "muon")
SCHEDULES = ("cosine", "constant", "step", "plateau")


def learning_rate(
    schedule: str,
    *,
    peak: float,
    total_steps: int,
    warmup_steps: int = 0,
    step_boundaries: Sequence[int] = (),
    step_factor: float = 0.1,
) -> optax.Schedule:
    """Returns the learning rate as a function of the update number (int, from 0).

    Args:
      schedule: "cosine" falls from `peak` to 0 at `total_steps` (Loshchilov & Hutter 2017, arXiv:1608.03983),
        "constant" is constant, "step" multiplies by `step_factor` at each of `step_boundaries`, "plateau" is
        constant and scaled by `TrainState.lr_scale`.
      peak: learning rate after the warm-up.
      total_steps: updates of the run.
      warmup_steps: updates of linear warm-up from 0, for any schedule.
      step_boundaries: update numbers at which "step" reduces the learning rate.
      step_factor: factor of each reduction.

    Raises:
      ValueError: the schedule is unknown, or the warm-up is not shorter than the run.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"config.optim.schedule is {schedule!r}; there are: {', '.join(SCHEDULES)}")
    if warmup_steps >= total_steps and warmup_steps:
        raise ValueError(
            f"the warm-up of {warmup_steps} steps must be shorter than the run of {total_steps} steps: "
            "reduce config.optim.warmup_steps (or warmup_epochs)"
        )
    if schedule == "cosine":
        main = optax.cosine_decay_schedule(peak, total_steps - warmup_steps)
    elif schedule == "step":
        drops = {boundary - warmup_steps: step_factor for boundary in step_boundaries}
        main = optax.piecewise_constant_schedule(peak, drops)
    else:
        main = optax.constant_schedule(peak)
    if not warmup_steps:
        return main
    warmup = optax.linear_schedule(0.0, peak, warmup_steps)
    return optax.join_schedules([warmup, main], [warmup_steps])


def decay_mask(params: Any) -> Any:
    """Returns a tree that is True where weight decay applies: kernels, not biases or BatchNorm's scale."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def make_optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    accumulate: int = 1,
    factors: dict[tuple[str, ...], float] | None = None,
) -> optax.GradientTransformation:
    """Returns an optimizer.

    Args:
      name: "sgd" (Nesterov momentum, with L2 regularization), "adam" (with L2 regularization), "adamw"
        (decoupled weight decay: Loshchilov & Hutter 2019, arXiv:1711.05101), or "muon" (decoupled weight
        decay; Muon, Jordan 2024, for the kernels of convolutions, with updates scaled to the size of AdamW's
        as in Liu et al. 2025, arXiv:2502.16982, and AdamW with Nesterov momentum for all other parameters).
      schedule: learning rate by update number.
      momentum: Nesterov momentum of "sgd".
      weight_decay: on kernels only, see `decay_mask`.
      clip_norm: maximum global norm of the gradient, before decay; 0 for no limit.
      accumulate: number of steps whose gradients are averaged into an update.
      factors: factors on the learning rate by path of a layer; None for 1.

    Raises:
      ValueError: the name is unknown.
    """
    decay = [optax.add_decayed_weights(weight_decay, decay_mask)] if weight_decay else []
    if name == "sgd":
        parts = [*decay, optax.trace(momentum, nesterov=True)]
    elif name == "adam":
        parts = [*decay, optax.scale_by_adam()]
    elif name == "adamw":
        parts = [optax.scale_by_adam(), *decay]
    elif name == "muon":
        # A rate of -1 gives the update direction with the gradient's sign; the schedule is applied last.
        direction = optax.contrib.muon(-1.0, muon_weight_dimension_numbers=_matrices, consistent_rms=0.2)
        parts = [direction, *decay]
    else:
        raise ValueError(f"config.optim.name is {name!r}; there are: {', '.join(OPTIMIZERS)}")
    if clip_norm:
        parts.insert(0, optax.clip_by_global_norm(clip_norm))
    if factors is not None:
        parts.append(optax.stateless(lambda updates, _: _scaled(updates, factors)))
    tx = optax.chain(*parts, optax.scale_by_learning_rate(schedule))
    return optax.MultiSteps(tx, accumulate).gradient_transformation() if accumulate > 1 else tx


def _matrices(params: Any) -> Any:
    """Returns Muon's dimension numbers: kernels [h, w, C, D] as matrices [h * w * C, D]; None for others."""
    kernel = optax.contrib.MuonDimensionNumbers(reduction_axis=(0, 1, 2), output_axis=3)
    return jax.tree.map(lambda p: kernel if p.ndim == 4 else None, params)


def _scaled(updates: Any, factors: dict[tuple[str, ...], float]) -> Any:
    flat: dict[Any, Any] = traverse_util.flatten_dict(updates)
    return traverse_util.unflatten_dict({path: u * factors[path[:-1]] for path, u in flat.items()})


@dataclasses.dataclass
class PlateauTracker:
    """Tracks the selection metric for early stopping and reduce-on-plateau.

    Attributes:
      patience: evaluations without improvement until the run stops; 0 disables early stopping.
      plateau_patience: evaluations without improvement until the learning rate is reduced; 0 disables this.
      plateau_factor: factor of each reduction.
      min_scale: minimum total factor on the learning rate.
      best, best_step: the best value and the step it came from.
      stale, plateau_stale: evaluations since the last improvement, or since the last reduction.
      scale: the factor on the learning rate so far.
    """

    patience: int = 0
    plateau_patience: int = 0
    plateau_factor: float = 0.5
    min_scale: float = 1e-3
    best: float = float("-inf")
    best_step: int = -1
    stale: int = 0
    plateau_stale: int = 0
    scale: float = 1.0

    def update(self, value: float, step: int) -> bool:
        """Adds the metric (higher is better) after `step`; returns whether it is the best so far."""
        if value > self.best:
            self.best, self.best_step, self.stale, self.plateau_stale = value, step, 0, 0
            return True
        self.stale += 1
        self.plateau_stale += 1
        if self.plateau_patience and self.plateau_stale >= self.plateau_patience:
            self.scale = max(self.scale * self.plateau_factor, self.min_scale)
            self.plateau_stale = 0
        return False

    def start_stage(self) -> None:
        """Resets the plateau and the factor on the learning rate, but not the best value."""
        self.plateau_stale, self.scale = 0, 1.0

    @property
    def should_stop(self) -> bool:
        """Returns whether the patience is exhausted."""
        return bool(self.patience) and self.stale >= self.patience

    def state(self) -> dict[str, float | None]:
        """Returns the state for a checkpoint, as JSON; -inf is stored as None."""
        fields = ("best", "best_step", "stale", "plateau_stale", "scale")
        state = {key: getattr(self, key) for key in fields}
        return state | ({"best": None} if self.best_step < 0 else {})

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a state from `state()`."""
        for key, value in state.items():
            setattr(self, key, float("-inf") if value is None else value)
