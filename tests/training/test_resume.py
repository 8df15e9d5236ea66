"""Tests that runs that are stopped, killed, or damaged end like uninterrupted ones."""

import json
import shutil
import signal

import jax
import pytest
from helpers import TIMES, assert_same_run
from small_runs import PLATEAU, STAGES, WHOLE, config_of, simple_config

from fer_jax.data.faces import LazyImages
from fer_jax.pretrained.weights_file import DamagedCheckpointError, export_weights, load_weights
from fer_jax.training.monitoring import EXIT_PREEMPTED, PreemptedError
from fer_jax.training.train import train_and_evaluate

STAGED = {"model.name": "two_layers", "train.steps": None, "stages": STAGES, **PLATEAU}
ACCUMULATED = {"optim.accumulate": 2, "optim.schedule": "plateau", "optim.plateau_patience": 1}


def without_times(summary):
    return {key: value for key, value in summary.items() if key not in TIMES}


@pytest.mark.parametrize(
    ("changes", "stops", "steps"),
    [
        # Between two updates, and when an evaluation is due.
        (
            {**ACCUMULATED, "selection.metric": "macro_f1", "train.steps": 14, "train.ema_decay": 0.9},
            (5, 9),
            14,
        ),
        ({"data.balanced_sampling": 1.0}, (6,), 10),
        # Within the first stage, between the stages, within the second, and at the end.
        (STAGED | {"optim.schedule": "constant"}, (2, 3, 5, 8), 8),
    ],
    ids=["accumulated", "balanced", "staged"],
)
def test_a_stopped_run_ends_as_if_it_had_not(
    changes, stops, steps, trained, resumed, two_angry, tiny_data, tmp_path
):
    config = simple_config(tiny_data, **changes)
    if "data.balanced_sampling" in changes:
        config.data.drop_ids = two_angry
    whole, summary = trained(config)
    assert without_times(resumed(config, tmp_path / "run", stops)) == without_times(summary)
    assert_same_run(whole, tmp_path / "run", steps)


def test_a_signal_during_an_evaluation_leaves_it_to_the_next_start(trained, tiny_data, tmp_path, monkeypatch):
    """The signal arrives before the last batch, also at the end of a stage and in the final report."""
    config = simple_config(tiny_data, **STAGED)
    whole, _ = trained(config)
    read, calls = LazyImages.__getitem__, []

    def read_and_signal(self, index):
        calls.append(index)
        if len(calls) in (2, 4, 7, 12):
            signal.raise_signal(signal.SIGINT if len(calls) in (2, 7) else signal.SIGTERM)
        return read(self, index)

    monkeypatch.setattr(LazyImages, "__getitem__", read_and_signal)
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    steps = []
    try:
        for _ in range(4):
            with pytest.raises(PreemptedError) as stopped:
                train_and_evaluate(config, tmp_path / "run")
            steps.append(stopped.value.step)
        train_and_evaluate(config, tmp_path / "run")
    finally:
        signal.signal(signal.SIGINT, previous)
    # Each interrupted evaluation is repeated: the second, the third, the fifth, and the report's.
    assert steps == [2, 3, 5, 8]
    assert_same_run(whole, tmp_path / "run", step=8)


def test_a_run_is_finished_without_its_best_checkpoint(tiny_data, tmp_path, caplog):
    # All metrics are equal, so the first is the best, at step 4 of 9.
    config = simple_config(tiny_data, **{"model.name": "constant", "train.steps": 9})
    summary = train_and_evaluate(config, tmp_path)
    best = tmp_path / "best.safetensors"
    weights = best.read_bytes()
    # The weights file is used if the checkpoint is missing ...
    (tmp_path / "summary.json").unlink()
    shutil.move(tmp_path / "checkpoints" / "4", tmp_path / "4")
    assert without_times(train_and_evaluate(config, tmp_path)) == without_times(summary)
    # ... and the checkpoint if the file is missing or from another step.
    shutil.move(tmp_path / "4", tmp_path / "checkpoints" / "4")
    flipped = bytearray(weights)
    flipped[-1] ^= 0xFF
    variables, metadata = load_weights(best)
    other = jax.tree.map(lambda x: x + 1, variables)  # from the right step, and undamaged
    for damage in (
        best.unlink,
        lambda: shutil.copy(tmp_path / "last.safetensors", best),
        lambda: best.write_bytes(flipped),
        lambda: export_weights(best, other, metadata),
    ):
        (tmp_path / "summary.json").unlink()
        damage()
        assert without_times(train_and_evaluate(config, tmp_path)) == without_times(summary)
        assert best.read_bytes() == weights
    assert f"{best} is damaged: its digest differs" in caplog.text
    # Without both, there is no result.
    (tmp_path / "summary.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "4")
    best.write_bytes(flipped)
    with pytest.raises(DamagedCheckpointError, match="the best weights, of step 4, are neither in"):
        train_and_evaluate(config, tmp_path)


def test_a_damaged_newest_checkpoint_is_skipped(whole, tiny_data, tmp_path, caplog):
    workdir, _ = whole
    copy = shutil.copytree(workdir, tmp_path / "run")
    (copy / "summary.json").unlink()
    for path in (copy / "checkpoints" / "10" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"garbage")
    train_and_evaluate(config_of(tiny_data, **WHOLE), copy)
    assert "damaged checkpoint" in caplog.text and str(copy / "checkpoints" / "10") in caplog.text
    assert_same_run(copy, workdir, step=10)


def test_a_run_of_processes_that_are_killed_or_stopped_is_the_whole_one(whole, forked, tiny_data, tmp_path):
    """Each start is a new process without TensorFlow, ended at another point."""
    endings = [
        ({"signal": ["SIGKILL", 2, 0]}, -signal.SIGKILL),  # before the first checkpoint
        ({"kill_in_save": ["os.rename", 3]}, -signal.SIGKILL),  # while the first checkpoint is committed
        ({"signal": ["SIGTERM", 5, 0]}, EXIT_PREEMPTED),  # in the middle of a window
        ({"signal": ["SIGKILL", 7, 0]}, -signal.SIGKILL),  # between two checkpoints
        ({"kill_in_save": ["open", 9]}, -signal.SIGKILL),  # while a checkpoint is started
        ({"signal": ["SIGTERM", 10, 0]}, EXIT_PREEMPTED),  # at the last evaluation
        ({}, 0),
    ]
    workdir = tmp_path / "run"
    spec = {"data": str(tiny_data), "workdir": str(workdir), "changes": WHOLE}
    for ending, code in endings:
        (process,) = forked("interrupted", [json.dumps(spec | ending)])
        assert process.returncode == code, (ending, process.stderr)
        # Only the event files are missing.
        assert process.stderr.count("no TensorBoard files: No module named 'tensorflow'") == 1
    assert_same_run(workdir, whole[0], step=10)
    # The summary does not depend on the interruptions.
    summary = json.loads(process.stdout)
    assert without_times(summary) == without_times(whole[1])
    assert summary["seconds"] > 0
    files = {path.name for path in workdir.iterdir()}
    assert files == {path.name for path in whole[0].iterdir()} - {"tensorboard"}
