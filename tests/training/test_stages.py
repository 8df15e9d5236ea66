"""Tests staged fine-tuning: trained and frozen layers, and the cost of a step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util
from helpers import assert_trees_close, assert_trees_equal
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import batch_of, small_cnn

from configs.default import get_config
from fer_jax import models
from fer_jax.models.ops import onednn
from fer_jax.training import build, losses, optim, stages, train_step
from fer_jax.training.stages import StageConfig
from fer_jax.training.state import create_state

SHAPE = (32, 32, 1)
CNN = [[("Conv_0",), ("BatchNorm_0",)], [("Conv_1",), ("BatchNorm_1",)]]
CNN += [[("Dense_0",), ("BatchNorm_2",)], [("Dense_1",)]]


@functools.cache
def mobilenet():
    return models.create("mobilenet_v3_small", dropout=0.0)


@functools.cache
def mobilenet_blocks():
    return stages.blocks(mobilenet(), SHAPE)


def test_blocks_in_the_order_of_the_data():
    assert stages.blocks(small_cnn(), SHAPE) == CNN


def test_blocks_of_a_backbone():
    names = [block[0][0] for block in mobilenet_blocks()]
    assert names == ["stem", *(f"block_{i}" for i in range(11)), "top", "hidden", "head"]
    assert mobilenet_blocks()[0] == [("stem",), ("stem_norm",)]
    names = "depthwise depthwise_norm squeeze/reduce squeeze/expand project project_norm"
    assert mobilenet_blocks()[1] == [("block_0", *name.split("/")) for name in names.split()]


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (StageConfig(1, "all"), None),
        (StageConfig(1, "head"), {("Dense_1",)}),
        (StageConfig(1, "blocks", last=1), {("Dense_1",), ("Dense_0",), ("BatchNorm_2",)}),
        (StageConfig(1, "layers", last=1), {("Dense_1",), ("BatchNorm_2",)}),
        (StageConfig(1, "layers", last=3), {("Dense_1",), ("BatchNorm_2",), ("Dense_0",), ("BatchNorm_1",)}),
    ],
)
def test_which_layers_train(stage, expected):
    assert stages.trained_layers(stage, CNN) == expected


def test_new_layers_train_with_the_head_at_its_rate():
    new = {("Conv_0",)}
    assert stages.trained_layers(StageConfig(1, "head"), CNN, new) == {("Dense_1",), ("Conv_0",)}
    last = stages.trained_layers(StageConfig(1, "layers", last=1), CNN, new)
    assert last == {("Dense_1",), ("BatchNorm_2",), ("Conv_0",)}
    assert stages.trained_layers(StageConfig(1), CNN, new) is None
    factors = stages.layer_factors(CNN, 0.5, new)
    assert (factors["Conv_0",], factors["BatchNorm_0",], factors["Conv_1",]) == (1, 0.125, 0.25)


@pytest.mark.parametrize("adapter", ["none", "rgb"])
def test_what_pretrained_weights_do_not_know_is_new_in_a_run(adapter):
    config = get_config()
    config.stages = ({"epochs": 1.0, "train": "head"}, {"epochs": 1.0})
    config.optim.layer_decay = 0.5
    network = models.create("mobilenet_v3_small", adapter=adapter)
    missing = ["params/block_3/expand/kernel", "batch_stats/block_3/depthwise_norm/mean"]
    missing.append("params/block_99/expand/kernel")  # absent in this truncated network
    stage_configs = build.stage_configs(config)
    head, everything = build.make_stages(config, stage_configs, network, 10, {"missing": missing})
    new = {("block_3", "expand"), ("block_3", "depthwise_norm"), ("head",)}
    new |= {("adapter",)} if adapter == "rgb" else set()
    assert head.trained == new and everything.trained is None
    gradient = {"stem": {"kernel": np.ones(2)}, "block_3": {"expand": {"kernel": np.ones(2)}}}
    tx = everything.tx
    updates, _ = tx.update(gradient, tx.init(gradient), gradient)
    ratio = updates["stem"]["kernel"] / updates["block_3"]["expand"]["kernel"]
    np.testing.assert_allclose(ratio, 0.5**14, rtol=1e-6)


@pytest.mark.parametrize(("train", "last"), [("blocks", 4), ("layers", 7)])
def test_more_than_there_are_is_refused(train, last):
    message = f"trains the last {last} {train}, but the model has {last - 1} before"
    with pytest.raises(ValueError, match=message):
        stages.trained_layers(StageConfig(1, train, last=last), CNN)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"epochs": 0}, "epochs=0 in a stage; expected more than 0"),
        ({"epochs": 1, "learning_rate": -0.1}, "learning_rate=-0.1 in a stage; expected 0 or more"),
        ({"epochs": 1, "train": "tail"}, "train='tail' in a stage; there are: all, head, blocks, layers"),
        ({"epochs": 1, "batch_norm": "on"}, "batch_norm='on' in a stage; there are: trained, frozen,"),
        ({"epochs": 1, "train": "blocks"}, "train='blocks' with last=0 in a stage"),
        ({"epochs": 1, "train": "head", "last": 2}, "train='head' with last=2 in a stage"),
    ],
)
def test_a_stage_that_cannot_be(fields, message):
    with pytest.raises(ValueError, match=message):
        StageConfig(**fields)


def test_frozen_layers():
    blocks = [[("stem",), ("stem_norm",)], [("block_0", "conv"), ("block_0", "norm")], [("head",)]]
    head = frozenset([("head",)])
    trunk = tuple(path for block in blocks[:2] for path in block)
    assert stages.frozen_layers(StageConfig(1, "head"), blocks, head) == trunk
    within = frozenset([("block_0", "norm"), ("head",)])
    assert stages.frozen_layers(StageConfig(1, "layers", last=1), blocks, within) == trunk[:3]
    assert stages.frozen_layers(StageConfig(1), blocks, None) == ()
    running = StageConfig(1, "head", batch_norm="running")
    assert stages.frozen_layers(running, blocks, head) == ()
    everything = StageConfig(1, batch_norm="frozen")
    assert stages.frozen_layers(everything, blocks, None) == (*trunk, ("head",))


def test_layer_factors_fall_with_the_distance_from_the_head():
    factors = stages.layer_factors(CNN, 0.5)
    assert factors[("Dense_1",)] == 1
    assert factors[("Dense_0",)] == factors[("BatchNorm_2",)] == 0.5
    assert factors[("Conv_0",)] == 0.125


LAYERS = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")),
    st.dictionaries(st.sampled_from(["kernel", "bias"]), st.integers(), min_size=1),
    min_size=1,
)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(layers=LAYERS, trained=st.frozensets(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"))))
def test_partition_splits_by_layers_and_merge_undoes_it(layers, trained):
    flat = {(*path, name): value for path, arrays in layers.items() for name, value in arrays.items()}
    params = traverse_util.unflatten_dict(flat)
    parts = stages.partition(params, trained)
    for part, trains in zip(parts, (True, False), strict=True):
        expected = {path: value for path, value in flat.items() if (path[:-1] in trained) is trains}
        assert traverse_util.flatten_dict(part) == expected
    assert stages.merge(*parts) == params
    assert stages.partition(params, None) == (params, {})


# -------------------- in a step --------------------


def taken(model, stage, blocks, tx=None, make=lambda state: state(), **kwargs):
    """Returns a state from `make`, its uncompiled step, and the trained layers."""
    trained = stages.trained_layers(stage, blocks)
    frozen = stages.frozen_layers(stage, blocks, trained)
    tx = tx or optax.sgd(0.1, momentum=0.9)
    state = make(lambda: create_state(model, tx, input_shape=SHAPE, seed=0, use_ema=True, trained=trained))
    how = dict(size=SHAPE[0], mean=0.5, std=0.25, channels=1, ema_decay=0.9, trained=trained) | kwargs
    network = model.clone(frozen=frozen) if frozen else model
    step = train_step.make_train_step(network, tx, losses.cross_entropy, **how)
    return state, step, trained


def changed(old, new):
    """Returns the paths of layers with a changed array."""
    old, new = traverse_util.flatten_dict(old), traverse_util.flatten_dict(new)
    return {path[:-1] for path in old if not np.array_equal(old[path], new[path])}


def test_only_what_trains_changes():
    stage = StageConfig(1, "blocks", last=1, batch_norm="running")
    state, step, trained = taken(small_cnn(), stage, CNN)
    new, _ = jax.jit(step)(state, batch_of(8, SHAPE[0]))
    assert changed(state.params, new.params) == trained == changed(state.ema["params"], new.ema["params"])
    kept = {leaf.shape for leaf in jax.tree.leaves(new.opt_state)} - {()}
    assert kept == {(8, 8), (8,), (8, 7), (7,)}


def test_the_gradient_of_a_part_is_that_of_the_whole():
    """SGD updates the trained layers as if all layers were trained."""
    tx = optax.sgd(0.1)
    part, step, _ = taken(small_cnn(), StageConfig(1, "blocks", last=1, batch_norm="running"), CNN, tx)
    whole, whole_step, _ = taken(small_cnn(), StageConfig(1, batch_norm="running"), CNN, tx)
    new, _ = jax.jit(step)(part, batch_of(8, SHAPE[0]))
    expected, _ = jax.jit(whole_step)(whole, batch_of(8, SHAPE[0]))
    for name in ("Dense_0", "Dense_1", "BatchNorm_2"):
        assert_trees_close(new.params[name], expected.params[name], rtol=1e-5, atol=1e-7)


def test_frozen_statistics_stay_and_are_what_normalises():
    model = models.create("efficientnet_b0", width=0.2, depth=0.3, cut=2, dropout=0.0)
    state, step, _ = taken(model, StageConfig(1, "head"), stages.blocks(model, SHAPE))
    new, metrics = jax.jit(step)(state, batch_of(4, SHAPE[0]))
    assert_trees_equal(state.batch_stats, new.batch_stats)
    x = (jnp.float32(batch_of(4, SHAPE[0])["image"]) / 255 - 0.5) / 0.25
    logits = jax.jit(model.apply)({"params": state.params, "batch_stats": state.batch_stats}, x)
    loss, count = losses.cross_entropy(logits, batch_of(4, SHAPE[0])["target"])
    assert float(metrics["loss"]) == pytest.approx(float(loss / count), rel=1e-5)


def moved_statistics(stage):
    """Returns the layers of MobileNetV3-Small that update their statistics, found by tracing."""
    trained = stages.trained_layers(stage, mobilenet_blocks())
    model = mobilenet().clone(frozen=stages.frozen_layers(stage, mobilenet_blocks(), trained))
    face = jax.ShapeDtypeStruct((4, *SHAPE), np.float32)
    moved = set()

    def trace(variables, x):
        _, updated = model.apply(variables, x, train=True, mutable=["batch_stats"])
        old, new = (traverse_util.flatten_dict(v["batch_stats"]) for v in (variables, updated))
        moved.update(path[:-1] for path in old if new[path] is not old[path])

    jax.eval_shape(trace, jax.eval_shape(model.init, jax.random.key(0), face), face)
    return moved


def test_statistics_of_blocks_that_train_run():
    assert moved_statistics(StageConfig(1, "blocks", last=3)) == {
        ("top_norm",),
        *(("block_10", f"{name}_norm") for name in ("expand", "depthwise", "project")),
    }


def test_statistics_run_layer_by_layer_where_a_stage_cuts_a_block():
    # From the head: hidden, top_norm, top, and of the block before them project_norm and project.
    expected = {1: set(), 2: {("top_norm",)}, 5: {("top_norm",), ("block_10", "project_norm")}}
    found = {last: moved_statistics(StageConfig(1, "layers", last=last)) for last in expected}
    assert found == expected


def test_a_frozen_trunk_costs_no_gradient(monkeypatch):
    model = models.create("efficientnet_b0", width=0.2, depth=0.3, cut=3, dropout=0.0)
    blocks = stages.blocks(model, SHAPE)
    # XLA does not count operations of custom calls.
    monkeypatch.setattr(onednn, "is_usable", lambda *arrays: False)
    # The shapes of the state suffice; within `eval_shape`, jit does not accept compiler options.
    monkeypatch.setattr("fer_jax.runtime.run_once_options", dict)

    def flops(stage):
        state, step, _ = taken(model, stage, blocks, make=jax.eval_shape)
        return jax.jit(step).lower(state, batch_of(4, SHAPE[0])).cost_analysis()["flops"]

    assert flops(StageConfig(1, "head")) < 0.45 * flops(StageConfig(1))


def test_layer_decay_scales_the_update():
    schedule = optim.learning_rate("constant", peak=0.1, total_steps=10)
    plain = optim.make_optimizer("sgd", schedule)
    scaled = optim.make_optimizer("sgd", schedule, factors=stages.layer_factors(CNN, 0.5))
    gradient = {name: {"kernel": np.ones(2, np.float32)} for name in ("Conv_0", "Conv_1", "Dense_1")}
    updates = [tx.update(gradient, tx.init(gradient), gradient)[0] for tx in (plain, scaled)]
    for name, factor in (("Conv_0", 0.125), ("Conv_1", 0.25), ("Dense_1", 1)):
        np.testing.assert_allclose(updates[1][name]["kernel"], factor * updates[0][name]["kernel"])
