"""Tests the state, the training step, and the forward pass against NumPy and plain JAX."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import assert_trees_close
from small_runs import batch_of, small_cnn

from fer_jax.data import augment, preprocessing
from fer_jax.models.layers import BatchNorm
from fer_jax.training import losses, optim, train_step
from fer_jax.training.state import create_state

pytestmark = pytest.mark.optimized

SIZE = 12
MEAN, STD = 0.45, 0.25
PREPROCESS = dict(size=SIZE, mean=MEAN, std=STD, channels=1)
RATE = 0.1


class Linear(nn.Module):
    """Softmax regression: one dense layer with a known gradient."""

    spread: float = 0.0
    dropout: float = 0.0
    normed: bool = False

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(x.shape[0], -1)
        if self.normed:
            x = BatchNorm(train)(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.Dense(7, kernel_init=nn.initializers.normal(self.spread))(x)


def sgd(momentum=0.0, **kwargs):
    schedule = optim.learning_rate("constant", peak=RATE, total_steps=100)
    return optim.make_optimizer("sgd", schedule, momentum=momentum, **kwargs)


def state_of(model, tx, **kwargs):
    kwargs = dict(input_shape=(SIZE, SIZE, 1), seed=1, use_ema=False) | kwargs
    return create_state(model, tx, **kwargs)


def compiled(model, tx, loss_fn=losses.cross_entropy, **kwargs):
    return jax.jit(train_step.make_train_step(model, tx, loss_fn, **PREPROCESS, **kwargs))


def normalized(images):
    return (np.float64(images) / 255 - MEAN) / STD


def cnn_variables():
    """Returns random weights for `small_cnn` without compiling its initialization, which takes seconds."""
    rng = np.random.default_rng(8)
    shapes = jax.eval_shape(small_cnn().init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 1)))
    return jax.tree.map(lambda leaf: np.float32(rng.uniform(0.1, 0.6, leaf.shape)), shapes)


# -------------------- state --------------------


def test_a_fresh_state():
    model = Linear(normed=True)
    state = state_of(model, sgd(momentum=0.9), use_ema=True)
    assert int(state.step) == 0 and float(state.lr_scale) == 1
    assert state.step.dtype == jnp.int32
    weights = jax.tree.leaves((state.params, state.batch_stats))
    assert len(weights) == 6 and {leaf.dtype.name for leaf in weights} == {"float32"}
    # The EMA starts at the weights.
    assert_trees_close(state.ema, {"params": state.params, "batch_stats": state.batch_stats})
    assert state.variables() == state.ema
    without = state_of(model, sgd())
    assert without.ema == {} and without.variables()["params"] is without.params


def test_seeds_decide_the_parameters():
    model = Linear(spread=1.0)
    first, again, other = (state_of(model, sgd(), seed=seed) for seed in (1, 1, 2))
    assert_trees_close(first, again, rtol=0)
    kernels = [state.params["Dense_0"]["kernel"] for state in (first, other)]
    assert not np.allclose(*kernels)
    assert (first.rng != other.rng).any()


def test_starting_from_given_weights():
    variables = cnn_variables()
    new = state_of(small_cnn(), sgd(momentum=0.9), use_ema=True, variables=variables)
    assert_trees_close(new.params, variables["params"], rtol=0)
    assert_trees_close(new.ema, variables, rtol=0)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(new.opt_state))


def test_weights_of_another_network_are_refused():
    variables = cnn_variables()
    params = variables["params"]
    params["Dense_9"] = {"kernel": np.zeros((2, 3))}
    params["Conv_0"] = {"kernel": np.zeros((3, 3, 1, 5))}
    del variables["batch_stats"]["BatchNorm_0"]["var"]
    with pytest.raises(ValueError) as error:
        state_of(small_cnn(), sgd(), variables=variables)
    message = str(error.value)
    assert "another network (3 arrays differ)" in message
    assert "params/Conv_0/kernel: (3, 3, 1, 5) given, (3, 3, 1, 4) expected" in message
    assert "params/Dense_9/kernel: (2, 3) given, nothing expected" in message
    assert "batch_stats/BatchNorm_0/var: nothing given, (4,) expected" in message


# -------------------- the training step --------------------


def softmax_regression(kernel, bias, x, targets, weights=1.0):
    """Returns the mean loss and its gradients in NumPy; `weights` are per example."""
    logits = x @ kernel + bias
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    loss = -(weights * (targets * np.log(p)).sum(axis=1)).mean()
    d_logits = (np.reshape(weights, (-1, 1)) * (p - targets)) / len(x)
    return loss, x.T @ d_logits, d_logits.sum(axis=0)


def test_steps_of_softmax_regression_are_numpys():
    class_weights = np.float32([1, 9, 1, 0.5, 1, 1.2, 0.8])
    loss_fn = functools.partial(losses.cross_entropy, class_weights=class_weights)
    model, tx = Linear(), sgd()
    state = state_of(model, tx)
    step = compiled(model, tx, loss_fn)
    kernel, bias = np.zeros((SIZE * SIZE, 7)), np.zeros(7)
    for number in range(3):
        batch = batch_of(10, seed=number)
        x = normalized(batch["image"]).reshape(10, -1)
        targets = batch["target"]
        loss, d_kernel, d_bias = softmax_regression(kernel, bias, x, targets, targets @ class_weights)
        right = (x @ kernel + bias).argmax(axis=1) == targets.argmax(axis=1)
        kernel, bias = kernel - RATE * d_kernel, bias - RATE * d_bias
        state, metrics = step(state, batch)
        assert int(state.step) == number + 1
        dense = state.params["Dense_0"]
        np.testing.assert_allclose(dense["kernel"], kernel, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(dense["bias"], bias, rtol=1e-4, atol=1e-6)
        expected = {"loss": loss, "accuracy": right.mean()}
        expected["grad_norm"] = np.sqrt((d_kernel**2).sum() + (d_bias**2).sum())
        expected["param_norm"] = np.sqrt((kernel**2).sum() + (bias**2).sum())
        assert {k: float(v) for k, v in metrics.items()} == pytest.approx(expected, rel=1e-5)


def test_a_step_of_the_cnn_is_plain_jax():
    model, tx = small_cnn(), sgd(momentum=0.9, weight_decay=0.01)
    state = state_of(model, tx, use_ema=True, variables=cnn_variables())
    batch = batch_of(6)
    x = jnp.asarray(normalized(batch["image"]), jnp.float32)

    def objective(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, updated = model.apply(variables, x, train=True, mutable=["batch_stats"])
        return optax.softmax_cross_entropy(logits, batch["target"]).mean(), updated

    (loss, updated), grads = jax.jit(jax.value_and_grad(objective, has_aux=True))(state.params)
    mask = jax.tree.map(lambda p: p.ndim > 1, state.params)
    grads_l2 = jax.tree.map(lambda g, p, m: g + 0.01 * p * m, grads, state.params, mask)
    expected = jax.tree.map(lambda p, g: p - RATE * 1.9 * g, state.params, grads_l2)
    new, metrics = compiled(model, tx, ema_decay=0.5)(state, batch)
    tolerance = dict(rtol=1e-4, atol=1e-6)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert_trees_close(new.params, expected, **tolerance)
    assert_trees_close(new.batch_stats, updated["batch_stats"], **tolerance)


def test_the_plateau_scales_the_update_only():
    model, tx = Linear(), sgd(momentum=0.9)
    whole = state_of(model, tx)
    half = whole.replace(lr_scale=jnp.float32(0.5))
    step = compiled(model, tx)
    (new, metrics), (new_half, metrics_half) = step(whole, batch_of(4)), step(half, batch_of(4))
    difference = jax.tree.map(lambda p: 0.5 * p, new.params)  # both start at 0
    assert_trees_close(new_half.params, difference, rtol=1e-6)
    assert_trees_close(new_half.opt_state, new.opt_state, rtol=0)
    assert float(metrics["grad_norm"]) == float(metrics_half["grad_norm"])


def test_mixup_mixes_pixels_and_targets():
    model, tx = Linear(), sgd()
    mix = augment.identity(4)["mix"]
    mix[:, 0] = [0.75, 0.75, 0.6, 1.0]
    batch = batch_of(4, mix=mix)
    own, partner = np.float64(mix[:, :1]), [1, 0, 3, 2]
    x = normalized(batch["image"]).reshape(4, -1)
    x = own * x + (1 - own) * x[partner]
    targets = own * batch["target"] + (1 - own) * batch["target"][partner]
    loss, d_kernel, _ = softmax_regression(np.zeros((SIZE * SIZE, 7)), np.zeros(7), x, targets)
    state, metrics = compiled(model, tx)(state_of(model, tx), batch)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(state.params["Dense_0"]["kernel"], -RATE * d_kernel, rtol=1e-4, atol=1e-6)


def test_the_step_draws_at_the_asked_size():
    # A face upscaled by repeating pixels in 2 x 2 blocks gives the small face again.
    model, tx = Linear(), sgd()
    small = batch_of(4)
    large = small | {"image": small["image"].repeat(2, axis=1).repeat(2, axis=2)}
    step = compiled(model, tx)
    (one, _), (other, _) = step(state_of(model, tx), small), step(state_of(model, tx), large)
    assert_trees_close(one.params, other.params, rtol=1e-4, atol=1e-6)


def test_dropout_depends_on_seed_and_step_alone():
    model, tx = Linear(dropout=0.5), sgd()
    state = state_of(model, tx)
    step = compiled(model, tx)
    batch = batch_of(4)
    first, again = step(state, batch)[0], step(state, batch)[0]
    assert_trees_close(first, again, rtol=0)
    later = step(state.replace(step=state.step + 1), batch)[0]
    other = step(state_of(model, tx, seed=9), batch)[0]
    kernel = first.params["Dense_0"]["kernel"]
    assert not np.allclose(kernel, later.params["Dense_0"]["kernel"])
    assert not np.allclose(kernel, other.params["Dense_0"]["kernel"])
    np.testing.assert_array_equal(first.rng, state.rng)


def test_accumulation_is_one_big_batch():
    model, batch = Linear(), batch_of(12)
    parts = [{k: v[i : i + 4] for k, v in batch.items()} for i in (0, 4, 8)]
    options = dict(momentum=0.9, weight_decay=0.01, clip_norm=1.0)
    one, three = sgd(**options), sgd(accumulate=3, **options)
    expected = state_of(model, one, use_ema=True)
    state = state_of(model, three, use_ema=True)
    big = compiled(model, one, ema_decay=0.9)
    small = compiled(model, three, ema_decay=0.9, accumulate=3)
    for _ in range(2):
        expected, _ = big(expected, batch)
        for part in parts:
            state, _ = small(state, part)
    assert int(state.step) == 6
    assert_trees_close(state.params, expected.params, rtol=1e-4, atol=1e-6)
    # The EMA counts updates, not steps.
    assert_trees_close(state.ema, expected.ema, rtol=1e-4, atol=1e-6)


def test_the_average_follows_the_updates_of_a_stage_that_starts_in_between():
    model, tx = Linear(), sgd(accumulate=2)
    state = state_of(model, tx, use_ema=True).replace(step=jnp.int32(3))
    step = compiled(model, tx, ema_decay=0.25, accumulate=2)
    average, start = state.ema["params"], state.params
    # Steps 4 to 7 of the run are steps 1 to 4 of the stage, whose second and fourth are updates: the run's
    # second and third, whose factors are min(.25, (1 + n) / (10 + n)).
    for number, decay in enumerate([None, 0.25, None, 0.25]):
        state, _ = step(state, batch_of(6, seed=number))
        if decay is not None:
            average = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, average, state.params)
        assert_trees_close(state.ema["params"], average, rtol=1e-5, atol=1e-7)
    assert not np.array_equal(start["Dense_0"]["kernel"], state.params["Dense_0"]["kernel"])


def test_averages_of_parameters_and_statistics_by_hand():
    model, tx = Linear(normed=True), sgd()
    state = state_of(model, tx, use_ema=True)
    step = compiled(model, tx, ema_decay=0.25)
    average = {"params": state.params, "batch_stats": state.batch_stats}
    # min(.25, (1 + n) / (10 + n)) for n = 1, 2, 3.
    for number, decay in enumerate([2 / 11, 3 / 12, 0.25]):
        state, _ = step(state, batch_of(6, seed=number))
        new = {"params": state.params, "batch_stats": state.batch_stats}
        average = jax.tree.map(lambda a, b, d=decay: d * a + (1 - d) * b, average, new)
        assert_trees_close(state.ema, average, rtol=1e-5, atol=1e-6)
    assert state.variables() == state.ema


def test_bfloat16_computes_low_and_keeps_float32():
    tx, results = sgd(momentum=0.9), []
    start = state_of(small_cnn(), tx, use_ema=True, variables=cnn_variables())
    for dtype in ("bfloat16", "float32"):
        model = small_cnn().clone(dtype=dtype)
        state, metrics = compiled(model, tx, ema_decay=0.9)(start, batch_of(8))
        floats = [x for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)]
        assert {leaf.dtype.name for leaf in floats} == {"float32"}
        results.append((float(metrics["loss"]), state.params))
    (low_loss, low), (high_loss, high) = results
    assert low_loss == pytest.approx(high_loss, rel=0.02) and low_loss != high_loss
    assert_trees_close(low, high, atol=0.02)


# -------------------- input and forward pass --------------------


def test_normalisation_by_hand():
    x = jnp.float32([[[[0.0], [0.5]], [[0.75], [1.0]]]])
    np.testing.assert_allclose(
        preprocessing.normalize(x, 0.5, 0.25, 1), np.float32([[[[-2], [0]], [[1], [2]]]])
    )
    repeated = preprocessing.normalize(x, 0.5, 0.25, 3)
    assert repeated.shape == (1, 2, 2, 3)
    for channel in range(3):
        np.testing.assert_array_equal(repeated[..., [channel]], preprocessing.normalize(x, 0.5, 0.25, 1))


def test_colour_for_a_grey_model_is_refused():
    with pytest.raises(ValueError, match="faces have 3 channels, but the model takes 1"):
        preprocessing.normalize(jnp.zeros((1, 2, 2, 3)), 0.5, 0.25, 1)


def test_forward_is_the_model_on_normalised_pixels():
    model, variables = small_cnn(), cnn_variables()
    images = batch_of(3)["image"]
    forward = jax.jit(preprocessing.make_forward(model, **PREPROCESS))
    logits = forward(variables, images, augment.identity_affine(3))
    x = jnp.asarray(normalized(images), jnp.float32)
    expected = jax.jit(model.apply)(variables, x)
    assert logits.shape == (3, 7) and logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    mirrored = forward(variables, images[:, :, ::-1], augment.flip_affine(3))
    np.testing.assert_allclose(mirrored, expected, rtol=1e-4, atol=1e-5)


def test_sharpness_aware_steps_by_hand():
    """The gradient at a distance `radius` uphill updates the original weights."""
    model, tx, radius = Linear(spread=0.1), sgd(), 0.5
    state, batch = state_of(model, tx), batch_of(16)
    data = normalized(batch["image"]).reshape(16, -1), np.float64(batch["target"])
    start = [np.float64(state.params["Dense_0"][name]) for name in ("kernel", "bias")]
    _, *slope = softmax_regression(*start, *data)
    norm = np.sqrt(sum((g**2).sum() for g in slope))
    moved = (p + radius * g / norm for p, g in zip(start, slope, strict=True))
    loss, *above = softmax_regression(*moved, *data)
    after, metrics = compiled(model, tx, sharpness_radius=radius)(state, batch)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-4)
    for name, p, g in zip(("kernel", "bias"), start, above, strict=True):
        np.testing.assert_allclose(after.params["Dense_0"][name], p - RATE * g, rtol=1e-3, atol=1e-5)
    plain, _ = compiled(model, tx)(state, batch)
    assert np.abs(plain.params["Dense_0"]["kernel"] - after.params["Dense_0"]["kernel"]).max() > 1e-3
