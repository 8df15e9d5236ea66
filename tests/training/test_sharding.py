"""Tests that one device, a mesh, replicas, and several processes give the same results."""

import json
import shutil
import socket

import helpers
import jax
import numpy as np
import pytest
from helpers import assert_trees_close, raw_state, records, tiny_config, tiny_config_file

from fer_jax.training import sharding, split_prediction
from fer_jax.training.monitoring import EXIT_PREEMPTED, StopSignal
from fer_jax.training.train import train_and_evaluate

# Sums over devices have another order, and the rounding errors of float32 grow over steps, at a rate that
# depends on the processor. So several steps are compared in float64, and a single step in float32.
TOLERANCE = dict(rtol=1e-8, atol=1e-11)
TOLERANCE_FLOAT32 = dict(rtol=1e-4, atol=1e-5)
VALUES = ("loss", "accuracy", "grad_norm", "params", "batch_stats", "ema")


@pytest.fixture(scope="module")
def forked_in_float64():
    with helpers.forking(JAX_ENABLE_X64="1") as call:
        yield call


def coordinator():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return f"localhost:{probe.getsockname()[1]}"


def run_two(forked, function, arguments, code=0):
    """Runs two processes with two devices each and `arguments(coordinator, process, count)` -> stdout."""
    place = coordinator()
    processes = forked(function, *(arguments(place, process, 2) for process in range(2)), devices=2)
    for process in processes:
        assert process.returncode == code, process.stderr[-3000:]
    return [process.stdout for process in processes]


def run_eight(forked, out, steps):
    """Returns the results of each partitioner on eight simulated devices, and the output."""
    (process,) = forked("spread", [out, steps], devices=8)
    assert process.returncode == 0, process.stderr[-3000:]
    return np.load(out), process.stdout


@pytest.fixture(scope="module")
def eight(forked_in_float64, tmp_path_factory):
    """Returns the results of four steps in float64."""
    return run_eight(forked_in_float64, tmp_path_factory.mktemp("eight") / "eight.npz", 4)


def assert_same(results, way, others, other, tolerance=TOLERANCE):
    for name in VALUES:
        ours, theirs = results[f"{way}/{name}"], others[f"{other}/{name}"]
        np.testing.assert_allclose(ours, theirs, err_msg=name, **tolerance)


def test_a_mesh_and_pmap_on_eight_devices_are_one_device(eight):
    results, _ = eight
    assert results["devices"] == 8
    loss = results["one/loss"]
    assert len(set(loss)) == 4 and np.isfinite(loss).all() and loss.dtype == np.float64
    assert len(results["one/params"]) > 1000
    assert_same(results, "jit", results, "one")
    assert_same(results, "pmap", results, "one")


@pytest.mark.parametrize("fault", ["sum", "norm"])
def test_what_the_devices_do_not_share_shows(eight, fault):
    results, _ = eight
    for name in ("params", "batch_stats", "ema"):
        ours, theirs = results[f"{fault}/{name}"], results[f"one/{name}"]
        assert np.abs(ours - theirs).max() > 1e-3, name


def test_a_step_in_float32_is_the_same_up_to_rounding(forked, tmp_path):
    results, _ = run_eight(forked, tmp_path / "eight.npz", 1)
    assert results["one/loss"].dtype == np.float32
    assert_same(results, "jit", results, "one", TOLERANCE_FLOAT32)
    assert_same(results, "pmap", results, "one", TOLERANCE_FLOAT32)


def test_a_stage_of_a_backbone_on_eight_devices_is_that_on_one(eight):
    results, _ = eight
    moved = ~np.isin(results["one_stage/params"], results["one_stage/ema"])  # the EMA lags behind
    assert 0 < moved.mean() < 1
    for way in ("jit_stage", "pmap_stage"):
        assert_same(results, way, results, "one_stage")


def test_a_batch_that_does_not_divide_is_refused(eight):
    first, second = eight[1].strip().splitlines()
    assert "config.train.batch_size=25 is not divisible by 8 devices" in first
    assert "choose a multiple of 8, such as 24" in first
    assert "config.train.batch_size=24 is not divisible by 8 devices in pairs" in second
    assert "choose a multiple of 16, such as 32" in second


def test_two_processes_are_one(eight, forked_in_float64, tmp_path):
    assert jax.config.jax_cpu_collectives_implementation == "gloo"
    out = tmp_path / "two.npz"
    run_two(forked_in_float64, "spread", lambda *distributed: [out, 4, *distributed])
    results = np.load(out)
    assert (results["devices"], results["processes"]) == (4, 2)
    assert_same(results, "jit", eight[0], "one")
    assert_same(results, "pmap", eight[0], "one")


def test_only_replicas_have_a_mapped_axis():
    modes = {mode: sharding.make_partitioner(mode, 7) for mode in sharding.MODES}
    found = {mode: (partitioner.mode, partitioner.axis_name) for mode, partitioner in modes.items()}
    assert found == {"auto": ("jit", None), "jit": ("jit", None), "pmap": ("pmap", sharding.AXIS)}
    with pytest.raises(ValueError, match="config.parallel is 'mesh'; there are: auto, jit, pmap"):
        sharding.make_partitioner("mesh", 8)


@pytest.mark.parametrize("count, processes", [(7, 1), (7, 2), (7, 3), (8, 2), (2, 3)])
def test_processes_share_the_images_of_a_split(count, processes, monkeypatch):
    """All predict the same number of images, in order; the last processes pad with the last image."""
    images, shares = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2, 1), []

    def predict(part):
        assert part.shape[1:] == (2, 2, 1)
        return np.float64(part[np.arange(part.shape[0])]).reshape(part.shape[0], 4) / 3

    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr(sharding, "all_processes", lambda value: value)
    monkeypatch.setattr(split_prediction, "gather", lambda rows: shares.append(rows) or rows)
    for index in range(processes):
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        split_prediction.predict_split(predict, images, StopSignal())
    assert [len(share) for share in shares] == [-(-count // processes)] * processes
    whole = np.concatenate(shares)[:count]
    np.testing.assert_array_equal(whole, images.reshape(count, 4) / 3)


# -------------------- entire runs --------------------

# Without dropout, which differs between devices; without erased boxes, see tests/spread_steps.py; with a
# learning rate at which ten steps do not amplify the rounding errors of float32.
CHANGES = {
    "augment.erasing": 0.0,
    "model.kwargs": {"widths": (4,), "depths": (1,), "hidden": 8, "dropout": 0.0},
    "optim.learning_rate": 1e-3,
    "checkpoint.every_steps": 3,
}


def assert_close_runs(workdir, alone):
    ours, theirs = records(workdir), records(alone)
    assert [(r["step"], r["kind"]) for r in ours] == [(r["step"], r["kind"]) for r in theirs]
    for record, expected in zip(ours, theirs, strict=True):
        assert record.pop("kind") == expected.pop("kind")
        assert record == pytest.approx(expected, rel=1e-4, abs=1e-5)
    state, expected = raw_state(workdir, 10), raw_state(alone, 10)
    for name in ("params", "batch_stats", "ema", "opt_state"):
        assert_trees_close(state[name], expected[name], **TOLERANCE_FLOAT32)
    np.testing.assert_array_equal(state["rng"], expected["rng"])
    assert int(state["step"]) == 10


def test_a_run_of_two_processes_is_one_run(trained, forked, tiny_data, tmp_path):
    alone, _ = trained(tiny_config(tiny_data, **CHANGES), plain=False)
    config = tiny_config_file(tmp_path / "tiny.py", tiny_data, **CHANGES)
    workdir = tmp_path / "run"

    def arguments(coordinator, process, count):
        flags = ["--config", config, "--workdir", workdir, f"--coordinator={coordinator}"]
        return [*flags, f"--process_id={process}", f"--num_processes={count}"]

    first, second = run_two(forked, "command", arguments)
    # Only the first process writes and logs.
    assert "best accuracy" in first and str(workdir / "report" / "report.md") in first
    assert "best accuracy" not in second
    names = {path.name for path in workdir.iterdir()}
    assert names == {path.name for path in alone.iterdir()} - {"tensorboard"}
    assert_close_runs(workdir, alone)
    # One process resumes from an earlier checkpoint with pmap, and the run ends the same.
    (workdir / "summary.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / "10")
    summary = train_and_evaluate(tiny_config(tiny_data, parallel="pmap", **CHANGES), workdir)
    assert summary["steps"] == 10
    assert_close_runs(workdir, alone)


def test_two_processes_refuse_and_stop_together(forked, tiny_data, tmp_path):
    """First the directory is in use; then one of them receives SIGTERM, and both stop at the same step."""
    # The run ends only by the signal, on which the processes take a second to agree.
    changes = {"model.name": "two_layers", "train.steps": 10**6, "train.eval_steps": 10**6}
    spec = {"data": str(tiny_data), "workdir": str(tmp_path), "changes": changes}
    spec |= {"refused_first": True, "signal": ["SIGTERM", 5, 0]}
    arguments = lambda *distributed: [json.dumps(spec), *distributed]  # noqa: E731
    first, second = run_two(forked, "interrupted", arguments, EXIT_PREEMPTED)
    assert f"another process is training in {tmp_path}" in first
    assert "another process of this run failed; see its message" in second
    reached = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert int(raw_state(tmp_path, reached)["step"]) == reached >= 5
    assert not (tmp_path / "summary.json").exists()
