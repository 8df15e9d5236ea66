"""Tests schedules, optimizers, and the plateau tracker by hand and against Keras."""

import json
import math
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import needed
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax import models
from fer_jax.training import optim


@pytest.fixture(scope="module")
def keras():
    os.environ.setdefault("KERAS_BACKEND", "jax")
    return needed("keras", "test")


def constant(value):
    return optim.learning_rate("constant", peak=value, total_steps=100)


def rates(schedule, count, **kwargs):
    function = optim.learning_rate(schedule, **kwargs)
    return np.array([float(function(step)) for step in range(count)])


# -------------------- schedules --------------------


@pytest.mark.parametrize("warmup", [0, 4])
def test_cosine_by_hand(warmup):
    values = rates("cosine", warmup + 9, peak=0.4, total_steps=warmup + 8, warmup_steps=warmup)
    expected = [0.2 * (1 + math.cos(math.pi * step / 8)) for step in range(9)]
    np.testing.assert_allclose(values, [0, 0.1, 0.2, 0.3][:warmup] + expected, atol=1e-7)


@pytest.mark.parametrize("schedule", ["constant", "plateau"])
def test_constant_after_warmup(schedule):
    values = rates(schedule, 6, peak=0.3, total_steps=6, warmup_steps=3)
    np.testing.assert_allclose(values, [0, 0.1, 0.2, 0.3, 0.3, 0.3], atol=1e-7)


@pytest.mark.parametrize("warmup_steps", [0, 2])
def test_steps_drop_at_their_boundaries(warmup_steps):
    how = {"warmup_steps": warmup_steps, "step_boundaries": [3, 6], "step_factor": 0.1}
    values = rates("step", 9, peak=1.0, total_steps=9, **how)
    expected = np.array([1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01])
    expected[:warmup_steps] = [0, 0.5][:warmup_steps]
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="schedule is 'linear'; there are: cosine, constant, step"):
        optim.learning_rate("linear", peak=1, total_steps=1)
    with pytest.raises(ValueError, match="optim.name is 'lion'; there are: sgd, adam, adamw"):
        optim.make_optimizer("lion", constant(1))


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warm-up of 20 steps must be shorter than the run of 15 steps"):
        optim.learning_rate("cosine", peak=1, total_steps=15, warmup_steps=20)


# -------------------- optimizers --------------------


def descend(tx, params, gradients):
    """Returns the parameters after each gradient."""

    @jax.jit
    def step(gradient, state, params):
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    state, history = tx.init(params), []
    for gradient in gradients:
        params, state = step(gradient, state, params)
        history.append(params)
    return history


@pytest.fixture
def vectors():
    """Returns initial parameters [3, 5] and five gradients [5, 3, 5]."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(3, 5)).astype(np.float32), rng.normal(size=(5, 3, 5)).astype(np.float32)


def keras_descend(optimizer, keras, start, gradients):
    variable = keras.Variable(start)
    history = []
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        history.append(keras.ops.convert_to_numpy(variable))
    return history


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [
        ("SGD", {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}),
        ("Adam", {}, {"epsilon": 1e-8}),
        ("AdamW", {"weight_decay": 0.2}, {"weight_decay": 0.2, "epsilon": 1e-8}),
    ],
)
def test_optimizers_are_those_of_keras(name, ours, theirs, keras, vectors):
    tx = optim.make_optimizer(name.lower(), constant(0.05), **ours)
    expected = keras_descend(getattr(keras.optimizers, name)(0.05, **theirs), keras, *vectors)
    np.testing.assert_allclose(descend(tx, *vectors), expected, rtol=1e-4, atol=1e-6)


def test_decay_of_sgd_joins_the_gradient(vectors):
    start, gradients = vectors
    tx = optim.make_optimizer("sgd", constant(0.1), momentum=0.0, weight_decay=0.3)
    (first, *_) = descend(tx, start, gradients)
    np.testing.assert_allclose(first, start - 0.1 * (gradients[0] + 0.3 * start), rtol=1e-5)


def test_muon_steps_along_the_nearest_orthogonal_matrix():
    """The first update has the gradient's singular vectors and AdamW's size; other parameters use NAdamW."""
    rng = np.random.default_rng(0)
    params = {"kernel": jnp.zeros((3, 3, 4, 24)), "dense": jnp.zeros((6, 5)), "bias": jnp.zeros(5)}
    gradient = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
    (after,) = descend(optim.make_optimizer("muon", constant(0.1)), params, [gradient])
    (plain,) = descend(optax.nadamw(0.1, weight_decay=0.0), params, [gradient])
    for name in ("dense", "bias"):
        np.testing.assert_allclose(after[name], plain[name], rtol=1e-3)

    step = -np.asarray(after["kernel"]).reshape(36, 24)
    u, _, v = np.linalg.svd(np.asarray(gradient["kernel"]).reshape(36, 24), full_matrices=False)
    alike = (step * (u @ v)).sum() / np.linalg.norm(step) / np.linalg.norm(u @ v)
    assert alike > 0.95
    # 0.2 * sqrt(36), the longer side, times singular values that the polynomial maps to 0.6 to 1.3.
    singular = np.linalg.svd(step, compute_uv=False) / (0.1 * 0.2 * 6)
    assert 0.6 < singular.min() and singular.max() < 1.3


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_decay_leaves_batchnorm_and_biases_alone(optimizer):
    model = models.create("cnn_elu", widths=(4, 8), hidden=8, block_dropout=(0.0, 0.0))
    shapes = models.variable_shapes(model, (8, 8, 1))["params"]
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 2, np.float32), shapes)
    tx = optim.make_optimizer(optimizer, constant(0.5), momentum=0.0, weight_decay=0.1)
    (after,) = descend(tx, params, [jax.tree.map(np.zeros_like, params)])
    seen = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(after):
        kind = path[-1].key
        seen.add(kind)
        expected = 2.0 * (1 - 0.5 * 0.1) if kind == "kernel" else 2.0
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, err_msg=str(path))
    assert seen == {"kernel", "bias", "scale"}


def test_clipping_by_the_global_norm():
    # The global norm is 5, so a limit of 1 scales the gradient by 1/5.
    tx = optim.make_optimizer("sgd", constant(1.0), momentum=0.0, clip_norm=1.0)
    start = {"a": jnp.zeros((1, 1)), "b": jnp.zeros(1)}
    large = {"a": jnp.full((1, 1), 3.0), "b": jnp.full(1, 4.0)}
    small = {"a": jnp.full((1, 1), 0.3), "b": jnp.full(1, 0.4)}
    clipped, then = descend(tx, start, [large, small])
    assert float(clipped["a"][0, 0]) == pytest.approx(-0.6)
    assert float(clipped["b"][0]) == pytest.approx(-0.8)
    assert float(then["a"][0, 0]) == pytest.approx(-0.9)


def test_clipping_comes_before_decay():
    tx = optim.make_optimizer("sgd", constant(1.0), momentum=0.0, clip_norm=1.0, weight_decay=0.5)
    (after,) = descend(tx, jnp.full((1, 1), 10.0), [jnp.full((1, 1), 4.0)])
    assert float(after[0, 0]) == pytest.approx(10 - (1 + 5))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_accumulation_is_one_update_with_the_mean(name, vectors):
    start, gradients = vectors
    gradients = gradients[:4]
    schedule = optim.learning_rate("step", peak=0.1, total_steps=9, step_boundaries=[1])
    options = dict(weight_decay=0.01, clip_norm=1.0)
    one = optim.make_optimizer(name, schedule, **options)
    two = optim.make_optimizer(name, schedule, accumulate=2, **options)
    expected = descend(one, start, gradients.reshape(2, 2, 3, 5).mean(axis=1))
    history = descend(two, start, gradients)
    np.testing.assert_array_equal(history[0], start)
    np.testing.assert_allclose(history[1], expected[0], rtol=1e-5)
    np.testing.assert_array_equal(history[2], history[1])
    # The second update uses the second learning rate: the schedule counts updates, not steps.
    np.testing.assert_allclose(history[3], expected[1], rtol=1e-5)


# -------------------- the plateau tracker --------------------

SERIES = [0.3, 0.5, 0.5, 0.4, 0.45, 0.5, 0.6, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.6, 0.7, 0.1]


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("min_scale", [1e-3, 0.3])
def test_plateau_and_early_stopping_are_those_of_keras(keras, patience, min_scale):
    how = {"patience": patience, "mode": "max", "min_delta": 0}
    callbacks = [keras.callbacks.ReduceLROnPlateau("value", factor=0.5, min_lr=min_scale, **how)]
    callbacks.append(keras.callbacks.EarlyStopping("value", **how))
    optimizer = types.SimpleNamespace(learning_rate=np.float32(1))
    model = types.SimpleNamespace(optimizer=optimizer, stop_training=False)
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    plateau = {"plateau_patience": patience, "plateau_factor": 0.5, "min_scale": min_scale}
    tracker, stopped = optim.PlateauTracker(patience=patience, **plateau), False
    for epoch, value in enumerate(SERIES):
        for callback in callbacks:
            callback.on_epoch_end(epoch, {"value": value})
        tracker.update(value, epoch)
        stopped = stopped or tracker.should_stop
        assert tracker.scale == pytest.approx(float(optimizer.learning_rate)), epoch
        assert stopped == model.stop_training, epoch
    assert tracker.scale < 1 and stopped


def test_the_best_is_the_first_of_equals():
    tracker = optim.PlateauTracker()
    improved = [tracker.update(value, step) for step, value in enumerate(SERIES)]
    assert np.flatnonzero(improved).tolist() == [0, 1, 6, 15]
    assert (tracker.best, tracker.best_step) == (0.7, 15)
    assert tracker.scale == 1 and not tracker.should_stop


@settings(max_examples=50, deadline=None, derandomize=True)
@given(values=st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.4]), max_size=20), stop=st.integers(0, 20))
def test_a_restored_tracker_continues_as_before(values, stop):
    whole, restored = (optim.PlateauTracker(patience=6, plateau_patience=2) for _ in range(2))
    for step, value in enumerate(values):
        if step == stop:
            state = json.loads(json.dumps(restored.state(), allow_nan=False))
            restored = optim.PlateauTracker(patience=6, plateau_patience=2)
            restored.restore(state)
        assert restored.update(value, step) == whole.update(value, step)
    assert restored == whole
