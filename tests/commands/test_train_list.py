"""Tests fer-jax train-list on small data, with most trainings in this process."""

import argparse
import json
import os
import sys

import numpy as np
import pytest
from helpers import ROOT, call, run_within, script

import configs
from configs.default import augmentation
from fer_jax.training.monitoring import EXIT_PREEMPTED

train_list = script("train_list")


def test_networks_without_weights_are_trained_from_scratch_and_tabled_over_seeds(
    linear_network, plain_trainings, tiny_data, tmp_path, monkeypatch, capsys
):
    def shrink(config):
        config.data.dir = str(tiny_data)
        if config.init.weights == "none":  # at training, not when planned
            config.model.name, config.model.kwargs = "linear", {"spread": 5.0}
        config.augment = augmentation("none")
        config.update_from_flattened_dict({"stages": (), "train.steps": 2, "optim.warmup_epochs": 0.0})

    monkeypatch.setenv("FER_JAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    arguments = f"--out={tmp_path}", "--configs=mobilenet_v3_small", "--seeds", "3", "4"
    code, commands = run_within(monkeypatch, train_list, shrink, *arguments)
    assert code == 0 and [config.seed for _, config in commands.trained] == [3, 4]
    header, _, _, _, *rows = (tmp_path / "results.md").read_text().splitlines()
    assert "cpu" in header and "--configs=mobilenet_v3_small" in header
    paths = (tmp_path / f"mobilenet_v3_small_seed_{seed}" / "report" / "report.json" for seed in (3, 4))
    reports = [json.loads(path.read_text()) for path in paths]
    accuracies = [100 * report["accuracy"] for report in reports]
    words = "from scratch (keras weights unavailable)"
    for row, seed, accuracy in zip(rows, (3, 4), accuracies, strict=False):
        assert row.startswith(f"| `mobilenet_v3_small_seed_{seed}` | {words} | validation | {accuracy:.2f} (")
    spread = f"{np.mean(accuracies):.2f} ± {np.std(accuracies, ddof=1):.2f}"
    f1 = f"{np.mean([report['macro_f1'] for report in reports]):.3f}"
    assert rows[2] == f"| `mobilenet_v3_small`, 2 seeds, mean ± std | {words} |  | {spread} | {f1} |  |  |"
    assert capsys.readouterr().out.strip().splitlines()[-1] == rows[2]

    # Running it again trains nothing. With other settings, the folder belongs to another list.
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    assert run_within(monkeypatch, train_list, shrink, *arguments)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")} == before
    other = (*arguments, "--", "--config.train.ema_decay=0")
    code, commands = run_within(monkeypatch, train_list, shrink, *other)
    assert code == 2 and commands.trained == []
    assert "belongs to a run with another config" in capsys.readouterr().err


class Answering:
    """A replacement for `Commands` in which every command returns the same exit code."""

    def __init__(self, code):
        self.code, self.asked = code, []

    def run(self, *command):
        self.asked.append(command)
        return self.code, None


def planned(folder, name, code=1, **changes):
    """Returns the plan for a config with `folder` as --weights, and the executed commands."""
    commands = Answering(code)
    options = {"out": folder / "out", "weights": folder, "arguments": [], "seeds": None, "scratch": False}
    options = argparse.Namespace(**options | {"dry_run": False} | changes)
    return list(train_list.plan(commands, name, options)), commands.asked


@pytest.mark.parametrize(
    ("name", "workdir", "weights", "start"),
    [
        ("effnet_b0:cpu", "effnet_b0_cpu", "efficientnet_b0_timm_tf", "ImageNet, timm_tf"),
        ("effnet_lite2", "effnet_lite2", "efficientnet_lite2_timm_tf", "ImageNet, timm_tf"),
        ("mobilenet_v2", "mobilenet_v2", "mobilenet_v2_keras", "ImageNet, keras"),
        ("cnn", "cnn", None, "from scratch"),
        ("cnn_64", "cnn_64", None, "`runs/cnn_48`"),
    ],
)
def test_ported_weights_are_taken_from_their_folder(name, workdir, weights, start, tmp_path):
    path = tmp_path / f"{weights}.safetensors"
    path.touch()
    (training,), asked = planned(tmp_path, name, scratch=weights is None)
    assert (training.workdir, training.start) == (tmp_path / "out" / workdir, start) and not asked
    assert training.flags == (f"--config.init.weights={path if weights else 'none'}",)


def test_only_weights_that_no_server_has_are_replaced_by_scratch(tmp_path):
    """The decision is made once for all seeds."""
    trainings, asked = planned(tmp_path, "mobilenet_v2", os.EX_UNAVAILABLE, seeds=[3, 4], scratch=True)
    assert [training.flags for training in trainings] == [
        ("--config.init.weights=none", f"--config.seed={seed}") for seed in (3, 4)
    ]
    assert trainings[0].start == "from scratch (keras weights unavailable)" and len(asked) == 1
    with pytest.raises(SystemExit, match="error: the keras weights of mobilenet_v2 cannot be used"):
        planned(tmp_path, "mobilenet_v2", 1)
    with pytest.raises(SystemExit) as stopped:
        planned(tmp_path, "mobilenet_v2", EXIT_PREEMPTED)
    assert stopped.value.code == EXIT_PREEMPTED


def test_a_run_keeps_the_weights_it_started_with(tmp_path):
    """Starts offline, and resumes when the weights are available."""
    (tmp_path / "mobilenet_v2_keras.safetensors").touch()
    (tmp_path / "out" / "mobilenet_v2").mkdir(parents=True)
    path = tmp_path / "out" / "mobilenet_v2" / "config.json"
    for damaged in ("{", "{}"):
        path.write_text(damaged)
        with pytest.raises(ValueError, match=f"{path} is damaged"):
            planned(tmp_path, "mobilenet_v2")
    path.write_text('{"init.weights": "none"}')
    (training,), _ = planned(tmp_path, "mobilenet_v2", scratch=True)
    assert training.flags == ("--config.init.weights=none",)
    assert training.start == "from scratch (keras weights unavailable)"


def test_a_partial_file_is_asked_for(tmp_path):
    path = tmp_path / "efficientnet_b4_timm.safetensors"
    with pytest.raises(SystemExit, match=f"error: {path} does not exist: create it from a partial file of "):
        planned(tmp_path, "effnet_b4")
    path.touch()
    (first, second), _ = planned(tmp_path, "effnet_b4", scratch=True)
    assert (first.flags, first.start) == ((f"--config.init.weights={path}",), "ImageNet, a partial file")
    assert (second.workdir.name, second.start) == ("effnet_b4_scratch", "from scratch")
    assert second.flags == ("--config.init.weights=none",)


# Instead of training, it signals its parent if requested and waits for SIGTERM, or it fails.
STAND_IN = """#!{python}
import os, pathlib, signal, sys

if sys.argv[1] == "-c":
    sys.exit(print("a device"))
workdir = pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1])
workdir.mkdir()
if name := "{signal}":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(os.getppid(), getattr(signal, name))
    signal.sigwait([signal.SIGTERM])
    (workdir / "saved").touch()
    sys.exit(75)
sys.exit(3)
"""
DRIVER = """
import signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
from fer_jax.commands import train_list

train_list.launch.dry_run = lambda trainings: None  # of weights that are empty files
sys.executable = sys.argv.pop(1)
sys.exit(train_list.main())
"""


@pytest.fixture
def run_with_stand_in(forked, tmp_path):
    """Runs the command for two networks in a child process, with another program in place of Python."""

    def run(signal):
        stand_in = tmp_path / "python"
        stand_in.write_text(STAND_IN.format(python=sys.executable, signal=signal))
        stand_in.chmod(0o755)
        for name in ("mobilenet_v2_keras", "resnet18_timm"):
            (tmp_path / f"{name}.safetensors").touch()
        (tmp_path / "out").mkdir()
        flags = f"--out={tmp_path / 'out'}", f"--weights={tmp_path}", "--scratch", "--configs"
        return forked("python", [DRIVER, stand_in, *flags, "mobilenet_v2", "resnet18"])[0]

    return run


@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT"])
def test_a_signal_to_stop_reaches_the_training_and_is_no_failure(run_with_stand_in, tmp_path, signal):
    process = run_with_stand_in(signal)
    assert process.returncode == EXIT_PREEMPTED, process.stderr
    assert "mobilenet_v2 was stopped; run the same command to resume" in process.stderr
    begun = [path.name for path in (tmp_path / "out").iterdir()]
    assert begun == ["mobilenet_v2"] and (tmp_path / "out" / "mobilenet_v2" / "saved").exists()


def test_a_training_that_fails_has_a_row_of_its_own(run_with_stand_in, tmp_path):
    process = run_with_stand_in("")
    assert process.returncode == 3, process.stderr
    _, _, header, _, *rows = (tmp_path / "out" / "results.md").read_text().splitlines()
    cells = [[cell.strip(" `") for cell in row.strip("|").split("|")] for row in rows]
    assert [len(row) for row in cells] == [len(header.strip("|").split("|"))] * 4
    names = ["mobilenet_v2", "mobilenet_v2_scratch", "resnet18", "resnet18_scratch"]
    assert [(row[0], row[2]) for row in cells] == [(name, "failed (3)") for name in names]


@pytest.mark.parametrize("code", [os.EX_UNAVAILABLE, 2])
def test_port_weights_tells_a_missing_network_from_a_wrong_file(tmp_path, monkeypatch, capsys, code):
    monkeypatch.setenv("FER_JAX_CACHE", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    if code == 2:
        path = tmp_path / "keras" / "mobilenet_v3_small" / "weights_mobilenet_v3_small_224_1.0_float.h5"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"another file")
    words = ["--model=mobilenet_v3_small", "--from=keras", f"--out={tmp_path}"]
    assert script("port_weights").main(words) == code
    assert ("is not the file from" if code == 2 else "cannot be downloaded") in capsys.readouterr().err


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        (["resnet50"], "error: --config resnet50: there is no "),
        (["effnet_b0:tpu"], "configs/effnet_b0.py:tpu: expected one of gpu, cpu"),
        (["cnn", "configs/cnn.py"], "two of --configs would share a folder"),
    ],
)
def test_configs_that_cannot_be_are_refused(configs, message, tmp_path, capsys):
    assert call(train_list, f"--out={tmp_path}", "--configs", *configs) == 2
    assert message in capsys.readouterr().err


def test_a_dry_run_downloads_and_trains_nothing_from_any_directory(tmp_path, monkeypatch, capsys):
    """Experiments are found in the package, files in the current directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FER_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mine.py").write_text("from configs.cnn_small import get_config  # noqa: F401")
    words = ("--configs", "mobilenet_v2", "mine.py", "--dry-run", "--seeds", "3", "--out=out")
    assert call(train_list, *words) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert f"/configs/mobilenet_v2.py --workdir {tmp_path}/out/mobilenet_v2_seed_3 " in first
    assert "--config.init.weights=keras --config.seed=3" in first
    assert second.startswith(f"$ fer-jax train --config mine.py --workdir {tmp_path}/out/mine_seed_3 ")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


def test_experiments_are_found_by_name_or_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = str(ROOT / "configs" / "effnet_b0.py")
    assert configs.find("effnet_b0") == configs.find("configs/effnet_b0.py") == expected
    assert configs.find("effnet_b0:cpu") == f"{expected}:cpu"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "effnet_b0.py").touch()  # a file takes precedence
    assert configs.find("configs/effnet_b0.py:cpu") == "configs/effnet_b0.py:cpu"
    with pytest.raises(ValueError, match=r"--config cn: there is no .*/cn, and no .* there are: ablation, "):
        configs.find("cn")
