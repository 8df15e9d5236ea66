"""Defines the training state, which has only arrays."""

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
    """The training state, stored in checkpoints."""

    # int32 scalar, number of completed steps; with accumulated gradients an update takes several.
    step: jax.Array
    params: Any  # float32 tree of parameters
    batch_stats: Any  # float32 tree of running BatchNorm statistics
    opt_state: Any  # optax state
    ema: Any  # exponential moving average of {"params", "batch_stats"}, or {} if disabled
    lr_scale: jax.Array  # float32 scalar, factor on updates, lowered by reduce-on-plateau
    rng: jax.Array  # PRNG key data (uint32), into which each step folds its number

    def variables(self) -> dict[str, Any]:
        """Returns the variables for evaluation: the EMA if enabled."""
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
    """Creates an initial state for normalized faces of `input_shape` (S, S, C).

    The seed is that of the parameters and of dropout; `variables` {"params", "batch_stats"} replace random
    parameters. `tx` trains the layers `trained`, None for all.

    Raises:
      ValueError: `variables` do not fit the network.
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
    """Returns random {"params", "batch_stats"} of a network."""
    # One jitted call, because op-by-op initialization compiles each operation.
    init = jax.jit(model.init, compiler_options=runtime.run_once_options())
    return init(_keys(seed)[0], jnp.zeros((1, *input_shape), jnp.float32))


def _keys(seed: int) -> jax.Array:
    """Returns the PRNG keys of the parameters and the run."""
    return jax.random.split(jax.random.key(seed))
