"""One device, a mesh, replicas and several processes give the same numbers."""

import json
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import (
    QUICK_COMPILATION,
    ROOT,
    assert_trees_close,
    environment,
    raw_state,
    records,
    run_python,
    tiny_config,
    tiny_config_file,
    without_tensorflow,
)

from fer_jax.training import sharding, split_prediction
from fer_jax.training.monitoring import EXIT_PREEMPTED, StopSignal
from fer_jax.training.train import train_and_evaluate

EIGHT = "--xla_force_host_platform_device_count=8"
# Each of two processes compiles for itself.
TWO = {
    "XLA_FLAGS": f"{QUICK_COMPILATION} --xla_force_host_platform_device_count=2",
    "JAX_ENABLE_COMPILATION_CACHE": "0",
}
# Sums over devices come in another order. What float32 rounds off so grows from step to step, how fast
# depends on the processor: several steps are compared in float64, and in float32 one.
SEVERAL = {"JAX_ENABLE_X64": "1"}
TOLERANCE = dict(rtol=1e-8, atol=1e-11)
TOLERANCE_FLOAT32 = dict(rtol=1e-4, atol=1e-5)
VALUES = ("loss", "accuracy", "grad_norm", "params", "batch_stats", "ema")


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def run_two(*arguments, code=0, **env):
    """Two processes of `python ARGUMENTS` with {coordinator} and {process} filled in, ending with `code`."""
    coordinator = f"localhost:{free_port()}"
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                *(str(a).format(coordinator=coordinator, process=i) for a in arguments),
            ],
            cwd=ROOT,
            env=environment(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=600) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, stderr) in zip(processes, outputs, strict=True):
        assert process.returncode == code, stderr[-3000:]
    return outputs


def run_eight(out, steps, **env):
    """The results of each way on eight simulated devices, and what was printed."""
    process = run_python("tests/spread_steps.py", out, steps, **env)
    assert process.returncode == 0, process.stderr[-3000:]
    return np.load(out), process.stdout


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """Of four steps in float64."""
    flags = f"{QUICK_COMPILATION} {EIGHT}"
    return run_eight(tmp_path_factory.mktemp("eight") / "eight.npz", 4, XLA_FLAGS=flags, **SEVERAL)


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


def test_a_step_in_float32_is_the_same_up_to_rounding(tmp_path):
    flags = f"{QUICK_COMPILATION} {EIGHT}"
    results, _ = run_eight(tmp_path / "eight.npz", 1, XLA_FLAGS=flags)
    assert results["one/loss"].dtype == np.float32
    assert_same(results, "jit", results, "one", TOLERANCE_FLOAT32)
    assert_same(results, "pmap", results, "one", TOLERANCE_FLOAT32)


def test_a_stage_of_a_backbone_on_eight_devices_is_that_on_one(eight):
    results, _ = eight
    rest = {"project", "project_norm", "squeeze/reduce", "squeeze/expand"}
    block = {f"block_1/{name}" for name in rest | {"expand", "expand_norm", "depthwise", "depthwise_norm"}}
    for way in ("one_stage", "jit_stage", "pmap_stage"):
        assert set(results[f"{way}/moved"]) == block | {"head"}
        assert_same(results, way, results, "one_stage")


def test_a_batch_that_does_not_divide_is_refused(eight):
    first, second = eight[1].strip().splitlines()
    assert "config.train.batch_size=25 does not divide among 8 devices" in first
    assert "choose a multiple of 8, such as 24" in first
    assert "config.train.batch_size=24 does not divide among 8 devices in pairs" in second
    assert "choose a multiple of 16, such as 32" in second


def test_two_processes_are_one(eight, tmp_path):
    assert jax.config.jax_cpu_collectives_implementation == "gloo"
    out = tmp_path / "two.npz"
    run_two("tests/spread_steps.py", out, 4, "{coordinator}", "{process}", 2, **TWO, **SEVERAL)
    results = np.load(out)
    assert (results["devices"], results["processes"]) == (4, 2)
    assert_same(results, "jit", eight[0], "one")
    assert_same(results, "pmap", eight[0], "one")


def test_unknown_modes_list_the_known():
    with pytest.raises(ValueError, match="config.parallel is 'mesh'; there are: auto, jit, pmap"):
        sharding.make_partitioner("mesh", 8)


def test_only_replicas_have_a_mapped_axis():
    modes = {mode: sharding.make_partitioner(mode, 7) for mode in sharding.MODES}
    found = {mode: (partitioner.mode, partitioner.axis_name) for mode, partitioner in modes.items()}
    assert found == {"auto": ("jit", None), "jit": ("jit", None), "pmap": ("pmap", sharding.AXIS)}


@pytest.mark.parametrize("count, processes", [(7, 1), (7, 2), (7, 3), (8, 2), (2, 3)])
def test_processes_share_the_images_of_a_split(count, processes, monkeypatch):
    """Each predicts as many, in the order of the split, the last ones some of the last image again."""
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


# -------------------- whole runs --------------------

# Without dropout, whose randomness is a device's own; without erased boxes, see tests/spread_steps.py; at a
# rate at which ten steps do not yet enlarge what float32 rounds off.
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


def test_a_run_of_two_processes_is_one_run(trained, tiny_data, tmp_path):
    alone, _ = trained(tiny_config(tiny_data, **CHANGES), plain=False)
    config = tiny_config_file(tmp_path / "tiny.py", tiny_data, **CHANGES)
    workdir = tmp_path / "run"
    arguments = ["-m", "fer_jax.main", "--config", config, "--workdir", workdir]
    arguments += "--coordinator={coordinator} --process_id={process} --num_processes=2".split()
    (first, _), (second, _) = run_two(*arguments, **TWO, **without_tensorflow())
    # The first process alone writes and speaks.
    assert "best accuracy" in first and str(workdir / "report" / "report.md") in first
    assert "best accuracy" not in second
    names = {path.name for path in workdir.iterdir()}
    assert names == {path.name for path in alone.iterdir()} - {"tensorboard"}
    assert_close_runs(workdir, alone)
    # One process resumes from an earlier checkpoint, now with a replica, and the run ends the same.
    (workdir / "summary.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / "10")
    summary = train_and_evaluate(tiny_config(tiny_data, parallel="pmap", **CHANGES), workdir)
    assert summary["steps"] == 10
    assert_close_runs(workdir, alone)


def test_two_processes_refuse_and_stop_together(tiny_data, tmp_path):
    """First the directory is in use; then one of them gets SIGTERM, and both stop at one step."""
    # The run ends at the signal alone, which takes the processes a second to agree on.
    changes = {"model.name": "two_layers", "train.steps": 10**6, "train.eval_steps": 10**6}
    spec = {"data": str(tiny_data), "workdir": str(tmp_path), "changes": changes}
    spec |= {"refused_first": True, "signal": ["SIGTERM", 5, 0]}
    escaped = json.dumps(spec).replace("{", "{{").replace("}", "}}")
    arguments = "tests/interrupted_run.py", escaped, "{coordinator}", "{process}", 2
    (first, _), (second, _) = run_two(*arguments, code=EXIT_PREEMPTED, **TWO)
    assert f"another process is training in {tmp_path}" in first
    assert "another process of this run failed; its message says why" in second
    reached = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert int(raw_state(tmp_path, reached)["step"]) == reached >= 5
    assert not (tmp_path / "summary.json").exists()
