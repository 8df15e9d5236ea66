"""The training state: arrays only."""

from collections.abc import Collection
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from fer_jax import models, runtime
from fer_jax.training import stages


class TrainState(flax.struct.PyTreeNode):
    """The state of a run, all of which a checkpoint stores.

    Attributes:
      step: int32 scalar, steps done; with accumulated gradients an update takes several.
      params: float32 tree of parameters.
      batch_stats: float32 tree of running BatchNorm statistics.
      opt_state: optax state.
      ema: {"params", "batch_stats"} averaged exponentially, or {} when averaging is off.
      lr_scale: float32 scalar, a factor on every update; reduce-on-plateau lowers it.
      rng: PRNG key data (uint32); each step folds its number into it.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    lr_scale: jax.Array
    rng: jax.Array

    def variables(self) -> dict[str, Any]:
        """Returns the variables to evaluate with: the averaged ones where averaging is on."""
        return dict(self.ema) or {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    input_shape: tuple[int, int, int],
    seed: int,
    use_ema: bool,
    variables: dict[str, Any] | None = None,
    trained: Collection[stages.Path] | None = None,
) -> TrainState:
    """Creates a fresh state.

    Args:
      model: the network; `model(x, train)` maps float32 [B, *input_shape] to logits.
      tx: the optimizer.
      input_shape: (S, S, C) of one normalized face.
      seed: of the parameters and of the run's randomness (dropout).
      use_ema: whether to keep averaged weights.
      variables: {"params", "batch_stats"} to start from instead of random ones.
      trained: the layers that `tx` trains, None for all.

    Raises:
      ValueError: `variables` do not fit the network; the message names what differs.
    """
    if variables is None:
        variables = random_variables(model, input_shape, seed)
    else:
        models.check_fit(variables, model, input_shape)
    params = variables["params"]
    batch_stats = variables.get("batch_stats", {})
    ema = {"params": params, "batch_stats": batch_stats} if use_ema else {}
    free, _ = stages.partition(params, trained)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=batch_stats,
        opt_state=jax.jit(tx.init, compiler_options=runtime.run_once_options())(free),
        ema=jax.tree.map(jnp.copy, ema),
        lr_scale=jnp.ones((), jnp.float32),
        rng=jax.random.key_data(_keys(seed)[1]),
    )


def random_variables(model: nn.Module, input_shape: tuple[int, int, int], seed: int) -> dict[str, Any]:
    """Returns the random {"params", "batch_stats"} that a network starts from."""
    # One jitted call: op-by-op initialization compiles every small shape on its own.
    init = jax.jit(model.init, compiler_options=runtime.run_once_options())
    return init(_keys(seed)[0], jnp.zeros((1, *input_shape), jnp.float32))


def _keys(seed: int) -> jax.Array:
    """Returns the keys of the parameters and of the run."""
    return jax.random.split(jax.random.key(seed))
