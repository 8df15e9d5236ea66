"""fer-jax sweep at toy size, its trainings within this process."""

import json

import pytest
from helpers import TrainingsWithin, call, run_command, run_within, script

from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.metrics import classification
from fer_jax.training.monitoring import EXIT_PREEMPTED

pytestmark = pytest.mark.usefixtures("linear_network", "plain_trainings")

SMALL = ("--config.model.input_size=16", "--config.train.batch_size=14", "--config.train.epochs=2")


@pytest.fixture
def sweep(monkeypatch, tiny_data):
    """sweep(out, ..., flags=()) -> the exit code, and the trials and seeds that were trained."""

    def shrink(config):
        config.model.name, config.model.kwargs = "linear", {}

    def run(out, *arguments, flags=()):
        words = (f"--data={tiny_data}", f"--out={out}", *arguments, "--", *SMALL, *flags)
        code, commands = run_within(monkeypatch, script("sweep"), shrink, *words)
        return code, [(workdir.parent.name, config.seed) for workdir, config in commands.trained]

    return run


def test_a_folder_that_cannot_be_is_refused_before_any_training(sweep, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert sweep(tmp_path / "file", "--grid", "optim.momentum", "0.5", "0.9") == (2, [])
    assert f"cannot write to {tmp_path / 'file'}" in capsys.readouterr().err


def test_trains_ranks_and_goes_on(sweep, tmp_path, capsys, monkeypatch):
    """A rate so high that the loss is infinite fails, and the others go on; then another seed is added."""
    out = tmp_path / "out"
    assert sweep(out, "--grid", "optim.learning_rate", "0.01", "0.05", "1e38")[0] == 1
    printed = capsys.readouterr()
    assert "learning_rate=1e38 failed" in printed.err
    results = json.loads((out / "results.json").read_text())
    assert results["failed"] == ["learning_rate=1e38"] and results["seeds"] == [0]
    assert set(results["trials"]) == {"learning_rate=0.01", "learning_rate=0.05"}
    means = []
    for name, row in results["trials"].items():
        assert row["fields"] == {"optim.learning_rate": name.partition("=")[2]}
        found = predictions_file.read(out / name / "seed_0" / "report" / "predictions.csv")
        means.append(row["accuracy"]["mean"])
        assert means[-1] == pytest.approx(classification.accuracy(found.probs, found.labels))
    assert means == sorted(means, reverse=True)
    page = (out / "results.md").read_text()
    assert page in printed.out and "2 of 3 trials, seeds 0" in page
    assert "Failed: learning_rate=1e38." in page

    # Stopped when one of two trials has its second seed: they are ranked by what both have.
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/seed_0/summary.json")}
    again = ("--grid", "optim.learning_rate", "0.01", "0.05", "--seeds", "0", "1")
    with monkeypatch.context() as patch:
        train = TrainingsWithin.train

        def stopped(self, *words):
            return EXIT_PREEMPTED if len(self.trained) == 3 else train(self, *words)

        patch.setattr(TrainingsWithin, "train", stopped)
        code, trained = sweep(out, *again)
    assert code == EXIT_PREEMPTED and trained[-1] == ("learning_rate=0.01", 1)
    results = json.loads((out / "results.json").read_text())
    assert results["seeds"] == [0] and len(results["trials"]) == 2
    assert sweep(out, *again)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/seed_0/summary.json")} == before
    results = json.loads((out / "results.json").read_text())
    assert results["seeds"] == [0, 1]
    assert all(len(row["accuracy"]["values"]) == 2 for row in results["trials"].values())


def test_another_recipe_is_refused_before_anything_is_touched(sweep, tmp_path, capsys):
    grid = ("--grid", "optim.momentum", "0.5", "0.9")
    assert sweep(tmp_path, *grid)[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert "commit" in before[tmp_path / "results.md"].decode()
    # The folder of the third value is free, and it comes first.
    more = ("--grid", "optim.momentum", "0.7", "0.5", "0.9")
    assert sweep(tmp_path, *more, flags=["--config.optim.weight_decay=0.01"]) == (2, [])
    assert sweep(tmp_path, *more[:3], flags=["--config.optim.weight_decay=0.01"]) == (2, [])
    refusal = capsys.readouterr().err
    assert "momentum=0.5/seed_0 belongs to a run with another configuration" in refusal
    assert "optim.weight_decay: 0.0005 there, 0.01 here" in refusal and "give another --out" in refusal
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert sweep(tmp_path, "--grid", "optim.momentum", "0.9")[0] == 0
    assert list(json.loads((tmp_path / "results.json").read_text())["trials"]) == ["momentum=0.9"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--random", "3"), "--draw and --random go together"),
        (("--grid", "optim.lr", "1"), "configs/ablation.py has no field optim.lr"),
        (("--grid", "data.labels", "given"), "data.labels changes what a trial is judged by"),
        (("--grid", "optim.momentum", "0.9", "abc"), "--config.optim.momentum=abc: "),
        (("--grid", "train.ema_decay", "2"), "config.train.ema_decay is 2.0; expected 0 to below 1"),
        (("--grid", "optim.momentum", "0", "--", "--config.train.stepz=3"), 'Did you mean "steps"'),
        (("--grid", "seed", "1"), "seed: the command sets this for each training itself"),
        (("--grid", "optim.momentum", "0", "--grid", "optim.momentum", "1"), "optim.momentum is given twice"),
        (("--random", "2", "--draw", "optim.momentum", "log", "0", "1"), "--draw optim.momentum: log 0 1"),
        (
            ("--config", "configs/none.py", "--grid", "seed", "1"),
            "--config configs/none.py: there is no ",
        ),
    ],
)
def test_refuses(arguments, message, tmp_path, capsys):
    assert call(script("sweep"), f"--out={tmp_path}", *arguments) == 2
    assert message in capsys.readouterr().err


def test_nothing_to_try_is_refused(tmp_path):
    """As a process: the script starts by itself."""
    process = run_command("sweep", f"--out={tmp_path}")
    assert process.returncode == 2 and "nothing to try: give --grid" in process.stderr
