"""Tests the command line of training: help, overrides, errors, and an entire run."""

import json

import pytest
from helpers import ROOT, run_python, tiny_config_file

from fer_jax import main

DEFAULT = "--config=configs/default.py"


@pytest.fixture(scope="module")
def run(forked, tiny_data, tmp_path_factory):
    """Returns the process, run directory, and arguments of a run of two steps."""
    folder = tmp_path_factory.mktemp("main")
    config = tiny_config_file(folder / "tiny.py", tiny_data)
    workdir = folder / "run"
    arguments = [f"--config={config}", f"--workdir={workdir}", "--config.train.steps=2"]
    arguments += ["--config.optim.warmup_epochs=0.0", "--config.augment.rotation=7.5"]
    arguments += ["--config.model.kwargs.hidden=6", "--config.model.kwargs.widths=(4,)"]
    return forked("command", arguments)[0], workdir, arguments


@pytest.fixture
def train(forked):
    """Runs the command in a process; returns its exit code and output."""
    return lambda *arguments: forked("command", arguments)[0]


def test_a_run_from_the_command_line(run):
    process, workdir, _ = run
    assert process.returncode == 0, process.stderr[-3000:]
    summary = json.loads((workdir / "summary.json").read_text())
    assert f"best accuracy {summary['best']['value']:.4f} on validation" in process.stdout
    for name in ("report/report.md", "best.safetensors", "training_curves.png"):
        assert f"{workdir}/{name}" in process.stdout and (workdir / name).is_file()
    assert f"tensorboard --logdir {workdir}" in process.stdout
    # The parameter overview at the start, and the progress bar.
    assert "Conv_0/kernel" in process.stderr and "2/2" in process.stderr
    stored = json.loads((workdir / "config.json").read_text())
    assert stored["augment.rotation"] == 7.5 and stored["model.kwargs.hidden"] == 6
    assert stored["train.steps"] == 2


def test_the_same_command_again_says_that_it_is_done(run, train):
    again = train(*run[2])
    assert again.returncode == 0
    assert "this run is finished" in again.stderr and "best accuracy" in again.stdout


def test_another_config_is_an_error_not_a_traceback(run, train):
    _, workdir, arguments = run
    process = train(*arguments, "--config.seed=5")
    assert process.returncode == 1
    assert f"error: {workdir} belongs to a run with another config" in process.stderr
    assert "seed: 0 there, 5 here" in process.stderr and "Traceback" not in process.stderr


def test_missing_data_say_how_to_make_them(train, tmp_path):
    process = train(DEFAULT, f"--workdir={tmp_path / 'run'}", f"--config.data.dir={tmp_path / 'none'}")
    assert process.returncode == 1
    assert "error: " in process.stderr and "Traceback" not in process.stderr
    assert f"fer-jax prepare --source PATH/TO/fer2013.csv --out {tmp_path / 'none'}" in process.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((DEFAULT, "--config.optim.learnin_rate=1"), 'Did you mean "learning_rate"'),
        ((DEFAULT, "--config.optm.learning_rate=1"), 'Did you mean "optim"'),
        ((DEFAULT, "--config.optim.learning_rate=fast"), "learning_rate"),
        ((DEFAULT, "--config.model.kwargs.depth=3"), "only attributes that the config sets in"),
        ((DEFAULT, "--workdr=x"), "Did you mean: workdir"),
        ((), "--config"),
        (("--config=configs/nothing.py", "--config.seed=1"), "nothing.py, and no experiment of that name"),
        ((DEFAULT, "train"), "unexpected arguments ['train']"),
        ((DEFAULT, "--config.train.mix_until=2"), "error: config.train.mix_until is 2.0; expected 0 to 1"),
        ((DEFAULT, "--num_processes=2"), "--num_processes needs --coordinator=HOST:PORT"),
        ((DEFAULT, "--num_processes=2", "--coordinator=a:1", "--process_id=2"), "--process_id=2 is not in"),
    ],
)
def test_mistakes_are_named(arguments, message, train):
    process = train(*arguments)
    assert process.returncode != 0
    assert message in process.stderr + process.stdout
    assert "Traceback" not in process.stderr, process.stderr[-2000:]


def test_an_experiment_is_found_by_name_from_any_directory(tmp_path, monkeypatch):
    own = tmp_path / "cnn.py"
    own.touch()
    monkeypatch.chdir(tmp_path)
    argv = ["main", "--config", "cnn_64", "--config=effnet_b0:cpu", "--config.seed=1", "--config=cnn.py"]
    found = ["main", "--config", f"{ROOT}/configs/cnn_64.py", f"--config={ROOT}/configs/effnet_b0.py:cpu"]
    assert main.with_paths(argv) == [*found, "--config.seed=1", "--config=cnn.py"]


@pytest.mark.parametrize(
    ("code", "flags", "message"),
    [
        ("c.optim.momentm = 0.5", (), 'Did you mean "momentum"'),
        ("return c.seed.real.nothing", (), "'int' object has no attribute 'nothing'"),
        ("return open('votes.csv')", (), "votes.csv"),
        ("return open('votes.csv')", ("--config.seed=1",), "votes.csv"),
    ],
)
def test_a_mistake_in_an_experiments_own_code_keeps_its_traceback(code, flags, message, train, tmp_path):
    """A typo in the name of a field, by contrast, gives a message with a suggestion."""
    config = tiny_config_file(tmp_path / "c.py", tmp_path)
    config.write_text(config.read_text().replace("    return c", f"    {code}\n    return c"))
    process, typo = train(f"--config={config}", *flags), "momentm" in code
    assert process.returncode == 1 and message in process.stderr
    assert ("no such field" in process.stderr) == typo
    assert ("Traceback" in process.stderr and "c.py" in process.stderr) != typo


def test_help_is_useful():
    process = run_python("-m", "fer_jax.main", "--help")
    words = "--workdir --coordinator --num_processes --process_id --config.optim.learning_rate=0.05"
    texts = (
        "fer-jax train --config cnn",
        "configs/default.py lists all fields",
        "Run the same command to resume",
    )
    for text in (*texts, *words.split()):
        assert text in process.stdout, text


@pytest.mark.parametrize(
    "variables, found",
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}, True),
    ],
)
def test_a_cluster_is_found_in_the_environment(variables, found, monkeypatch):
    for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main.in_cluster() is found
