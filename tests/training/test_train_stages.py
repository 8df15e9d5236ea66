"""Staged fine-tuning in a whole run: rates, and what changes when."""

import numpy as np
import pytest
from helpers import raw_state, records, tiny_config
from small_runs import simple_config

from fer_jax.training.train import train_and_evaluate

STAGES = (
    {"epochs": 0.7, "train": "head", "learning_rate": 0.1},  # 3 steps of 70 faces, 16 a batch
    {"epochs": 1.15, "train": "all", "learning_rate": 0.01},  # 5 more
)


def config_of(data, stages=STAGES, **changes):
    fixed = {"model.name": "two_layers", "train.steps": None, "log_every": 1, "stages": stages}
    return simple_config(data, **fixed | {"optim.schedule": "constant"} | changes)


def rates_of(workdir):
    return [r["learning_rate"] for r in records(workdir) if r["kind"] == "train"]


def test_each_stage_has_its_rate_and_trains_its_layers(trained, tiny_data):
    workdir, _ = trained(config_of(tiny_data, **{"checkpoint.every_steps": 1, "checkpoint.keep": 100}))
    assert rates_of(workdir) == pytest.approx([0.1] * 3 + [0.01] * 5)
    trunks = [raw_state(workdir, step)["params"]["trunk"]["kernel"] for step in range(1, 9)]
    means = [raw_state(workdir, step)["batch_stats"]["trunk_norm"]["mean"] for step in range(1, 9)]
    for values in (trunks, means):
        same = [np.array_equal(a, b) for a, b in zip(values, values[1:], strict=False)]
        assert same == [True, True, False, False, False, False, False]


def test_the_schedule_restarts(trained, tiny_data):
    workdir, _ = trained(config_of(tiny_data, **{"optim.schedule": "cosine"}))
    cosine = [0.1 * (1 + np.cos(np.pi * i / 3)) / 2 for i in range(3)]
    cosine += [0.01 * (1 + np.cos(np.pi * i / 5)) / 2 for i in range(5)]
    assert rates_of(workdir) == pytest.approx(cosine, rel=1e-5)


def test_the_plateau_restarts(trained, tiny_data):
    changes = {
        "optim.schedule": "plateau",
        "optim.plateau_patience": 1,
        "optim.plateau_factor": 0.5,
        "train.eval_steps": 1,
        "selection.metric": "accuracy",
    }
    # With rates this small nothing improves: the first evaluation stays the best.
    stages = tuple(stage | {"learning_rate": 1e-12} for stage in STAGES)
    workdir, _ = trained(config_of(tiny_data, stages, **changes))
    expected = [1e-12, 1e-12, 5e-13, 1e-12, 5e-13, 2.5e-13, 1.25e-13, 6.25e-14]
    assert rates_of(workdir) == pytest.approx(expected)


def test_patience_ends_a_single_stage(trained, tiny_data):
    # At this rate the first evaluation stays the best.
    stage = STAGES[1] | {"learning_rate": 1e-12}
    changes = {"selection.patience": 1, "train.eval_steps": 1}
    _, summary = trained(config_of(tiny_data, (stage,), **changes))
    assert summary["stopped_early"] and summary["steps"] == 2


def test_a_network_whose_batch_norm_cannot_be_frozen_is_named(tiny_data, tmp_path):
    config = tiny_config(tiny_data, **{"train.steps": None})
    config.stages = STAGES[:1]
    with pytest.raises(ValueError, match="BatchNorm of cnn_relu always follows the batches: set batch_norm="):
        train_and_evaluate(config, tmp_path)
