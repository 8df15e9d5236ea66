"""Staged fine-tuning in a whole run: rates, what changes when, and resuming in and between stages."""

import signal

import flax.linen as nn
import numpy as np
import pytest
from helpers import assert_same_run, raw_state, records, tiny_config

from fer_jax import models
from fer_jax.models.layers import BatchNorm
from fer_jax.training.monitoring import PreemptedError
from fer_jax.training.train import Window, train_and_evaluate


class TwoLayers(nn.Module):
    """A trunk with BatchNorm and a head; compiles in no time."""

    num_classes: int = 7
    frozen: tuple[tuple[str, ...], ...] = ()
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Dense(4, name="trunk")(x.mean(axis=(1, 2)))
        x = BatchNorm(train and ("trunk_norm",) not in self.frozen, self.axis_name, name="trunk_norm")(x)
        return nn.Dense(self.num_classes, name="head")(nn.relu(x))


@pytest.fixture(autouse=True)
def _model(monkeypatch):
    monkeypatch.setitem(models.MODELS, "two_layers", TwoLayers)


STAGES = (
    {"epochs": 0.7, "train": "head", "learning_rate": 0.1},  # 3 steps of 70 faces, 16 a batch
    {"epochs": 1.15, "train": "all", "learning_rate": 0.01},  # 5 more
)


def config_of(data, stages=STAGES, **changes):
    config = tiny_config(data, **{"model.name": "two_layers", "train.steps": None, "log_every": 1})
    config.model.kwargs = {}
    config.update_from_flattened_dict({"optim.warmup_epochs": 0.0, "optim.schedule": "constant"} | changes)
    config.stages = stages
    return config


def test_each_stage_has_its_rate_and_trains_its_layers(tiny_data, tmp_path):
    config = config_of(tiny_data, **{"checkpoint.every_steps": 1, "checkpoint.keep": 100})
    train_and_evaluate(config, tmp_path)
    rates = [r["learning_rate"] for r in records(tmp_path) if r["kind"] == "train"]
    assert rates == pytest.approx([0.1] * 3 + [0.01] * 5)
    trunks = [raw_state(tmp_path, step)["params"]["trunk"]["kernel"] for step in range(1, 9)]
    means = [raw_state(tmp_path, step)["batch_stats"]["trunk_norm"]["mean"] for step in range(1, 9)]
    for values in (trunks, means):
        same = [np.array_equal(a, b) for a, b in zip(values, values[1:], strict=False)]
        assert same == [True, True, False, False, False, False, False]


def test_the_schedule_begins_anew(tiny_data, tmp_path):
    train_and_evaluate(config_of(tiny_data, **{"optim.schedule": "cosine"}), tmp_path)
    rates = [r["learning_rate"] for r in records(tmp_path) if r["kind"] == "train"]
    cosine = [0.1 * (1 + np.cos(np.pi * i / 3)) / 2 for i in range(3)]
    cosine += [0.01 * (1 + np.cos(np.pi * i / 5)) / 2 for i in range(5)]
    assert rates == pytest.approx(cosine, rel=1e-5)


def test_a_stopped_run_ends_as_if_it_had_not(tiny_data, tmp_path, monkeypatch):
    """Stopped within the first stage, between the two and within the second."""
    stops = (2, 3, 5)
    config = config_of(tiny_data, **{"optim.momentum": 0.9})
    train_and_evaluate(config, tmp_path / "whole")
    add = Window.add

    def add_and_stop(self, step, metrics):
        add(self, step, metrics)
        if step in stops:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Window, "add", add_and_stop)
    for _ in stops:
        with pytest.raises(PreemptedError):
            train_and_evaluate(config, tmp_path / "resumed")
    train_and_evaluate(config, tmp_path / "resumed")
    assert_same_run(tmp_path / "resumed", tmp_path / "whole", step=8)


def test_the_plateau_begins_anew(tiny_data, tmp_path):
    changes = {
        "optim.schedule": "plateau",
        "optim.plateau_patience": 1,
        "optim.plateau_factor": 0.5,
        "train.eval_steps": 1,
        "selection.metric": "accuracy",
    }
    # With rates this small nothing improves: the first evaluation stays the best.
    stages = tuple(stage | {"learning_rate": 1e-12} for stage in STAGES)
    train_and_evaluate(config_of(tiny_data, stages, **changes), tmp_path)
    rates = [r["learning_rate"] for r in records(tmp_path) if r["kind"] == "train"]
    assert rates == pytest.approx([1e-12, 1e-12, 5e-13, 1e-12, 5e-13, 2.5e-13, 1.25e-13, 6.25e-14])


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (({"epochs": 1.0, "train": "heads"},), "config.stages, stage 1: train='heads' in a stage"),
        ((STAGES[0], {"epochs": 1.0, "rate": 1}), r"stages, stage 2: .*'rate' \(fields: epochs, train,"),
        (({"epochs": 1.0, "train": "blocks", "last": 9},), "trains the last 9 blocks, and the model has 1"),
    ],
)
def test_stages_that_cannot_be(tiny_data, tmp_path, stages, message):
    with pytest.raises(ValueError, match=message):
        train_and_evaluate(config_of(tiny_data, stages), tmp_path)


def test_a_network_that_cannot_rest_is_named(tiny_data, tmp_path):
    config = tiny_config(tiny_data, **{"train.steps": None})
    config.stages = ({"epochs": 1.0, "train": "head"},)
    with pytest.raises(ValueError, match="BatchNorm of cnn_relu always follows the batches: set batch_norm="):
        train_and_evaluate(config, tmp_path)


def test_patience_is_for_one_stage(tiny_data, tmp_path):
    changes = {"selection.patience": 1, "train.eval_steps": 1}
    with pytest.raises(
        ValueError, match="selection.patience is 1 with 2 stages: an early stop would leave out"
    ):
        train_and_evaluate(config_of(tiny_data, **changes), tmp_path / "two")
    # Alone it stops: at this rate the first evaluation stays the best.
    stage = STAGES[1] | {"learning_rate": 1e-12}
    summary = train_and_evaluate(config_of(tiny_data, (stage,), **changes), tmp_path / "one")
    assert summary["stopped_early"] and summary["steps"] == 2


def test_steps_and_stages_exclude_each_other(tiny_data, tmp_path):
    with pytest.raises(ValueError, match="config.train.steps and config.stages are both set"):
        train_and_evaluate(config_of(tiny_data, **{"train.steps": 4}), tmp_path)
