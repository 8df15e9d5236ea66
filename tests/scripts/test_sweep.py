"""scripts/sweep.py at toy size."""

import json

import pytest
from helpers import QUICK, run_python, without_tensorflow

from fer_jax.evaluation import predictions, statistics

SMALL = (
    "--config.model.input_size=16",
    "--config.model.kwargs.widths=(4,)",
    "--config.model.kwargs.depths=(1,)",
    "--config.train.batch_size=14",
    "--config.train.epochs=2",
)


def sweep(data, out, *arguments):
    command = ("scripts/sweep.py", f"--data={data}", f"--out={out}", *arguments, "--", *SMALL)
    return run_python(*command, **QUICK, **without_tensorflow())


def test_trains_ranks_and_goes_on(tiny_data, tmp_path):
    """A rate so high that the loss is infinite fails, and the others go on; then another seed is added."""
    out = tmp_path / "out"
    rates = ("--grid", "optim.learning_rate", "0.01", "0.05", "1e38")
    process = sweep(tiny_data, out, *rates)
    assert process.returncode not in (0, 2) and "learning_rate=1e38 failed" in process.stderr
    results = json.loads((out / "results.json").read_text())
    assert results["failed"] == ["learning_rate=1e38"] and results["seeds"] == [0]
    assert set(results["trials"]) == {"learning_rate=0.01", "learning_rate=0.05"}
    means = []
    for name, row in results["trials"].items():
        assert row["fields"] == {"optim.learning_rate": name.partition("=")[2]}
        found = predictions.read(out / name / "seed_0" / "report" / "predictions.csv")
        means.append(row["accuracy"]["mean"])
        assert means[-1] == pytest.approx(statistics.accuracy(found.probs, found.labels))
    assert means == sorted(means, reverse=True)
    page = (out / "results.md").read_text()
    assert page in process.stdout and "2 of 3 trials, seeds 0" in page
    assert "Failed: learning_rate=1e38." in page and (out / "sweep.png").stat().st_size

    before = {path: path.stat().st_mtime_ns for path in out.glob("*/seed_0/summary.json")}
    process = sweep(tiny_data, out, "--grid", "optim.learning_rate", "0.01", "0.05", "--seeds", "0", "1")
    assert process.returncode == 0, process.stderr
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/seed_0/summary.json")} == before
    results = json.loads((out / "results.json").read_text())
    assert results["seeds"] == [0, 1]
    assert all(len(row["accuracy"]["values"]) == 2 for row in results["trials"].values())


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "nothing to try: give --grid"),
        (("--random", "3"), "--draw and --random go together"),
        (("--grid", "optim.lr", "1"), "configs/ablation.py has no field optim.lr"),
        (("--grid", "data.labels", "given"), "data.labels changes what a trial is judged by"),
        (("--grid", "seed", "1"), "seed: the script sets this for each training itself"),
        (("--grid", "optim.momentum", "0", "--grid", "optim.momentum", "1"), "optim.momentum is given twice"),
        (("--random", "2", "--draw", "optim.momentum", "log", "0", "1"), "--draw optim.momentum: log 0 1"),
        (
            ("--config", "configs/none.py", "--grid", "seed", "1"),
            "--config configs/none.py: there is no such",
        ),
    ],
)
def test_refuses(arguments, message, tmp_path):
    process = run_python("scripts/sweep.py", f"--out={tmp_path}", *arguments)
    assert process.returncode == 2 and message in process.stderr
