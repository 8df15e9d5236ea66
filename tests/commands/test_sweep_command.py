"""Tests fer-jax sweep on small data, with trainings in this process."""

import json

import jax
import numpy as np
import pytest
from helpers import TrainingsWithin, call, run_within, script
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data import exclude_list
from fer_jax.data.dataset import read
from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.metrics import classification
from fer_jax.training.metric_writers import read_records
from fer_jax.training.monitoring import EXIT_PREEMPTED

command = script("sweep")
SMALL = ("--config.model.input_size=16", "--config.train.batch_size=14", "--config.train.epochs=2")


def make_trials(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["fer-jax sweep", "--out=x", *map(str, words)])
    return command.make_trials(command.parse_args())


# --- trials ---


def test_a_grid_is_every_combination_and_changes_are_single(monkeypatch):
    grid = ("--grid", "optim.learning_rate", 0.1, 0.2, "--grid", "model.name", "a", "b")
    trials = make_trials(monkeypatch, "--baseline", *grid, "--change", "optim.momentum", 0.5, 0.8)
    combined = [f"name={name},learning_rate={rate}" for rate in (0.1, 0.2) for name in "ab"]
    assert list(trials) == ["baseline", "momentum=0.5", "momentum=0.8", *combined]
    assert trials["baseline"] == {} and trials["momentum=0.8"] == {"optim.momentum": "0.8"}


def test_draws_have_their_distributions_and_more_begin_alike(monkeypatch):
    draws = "--draw loss.focal_gamma uniform -1 3 --draw optim.learning_rate log 0.001 10 "
    draws += "--draw train.batch_size int 2 4 --draw model.name choice x y"
    trials, few, other = (
        list(make_trials(monkeypatch, f"--sweep_seed={seed}", f"--random={count}", *draws.split()).values())
        for seed, count in ((3, 400), (3, 5), (4, 5))
    )
    assert trials[:5] == few != other
    uniform, log, _, _ = zip(*(trial.values() for trial in trials), strict=True)
    uniform, log = np.array(uniform, float), np.array(log, float)
    assert -1 <= uniform.min() < -0.9 and 2.9 < uniform.max() <= 3 and abs(uniform.mean() - 1) < 0.2
    # Half of the draws over four decades lie below the middle.
    assert 0.001 <= log.min() and log.max() <= 10 and abs((log < 0.1).mean() - 0.5) < 0.08
    assert {t["train.batch_size"] for t in trials} == {"2", "3", "4"}
    assert {t["model.name"] for t in trials} == {"x", "y"}


def test_a_search_of_an_earlier_version_resumes(monkeypatch):
    draws = ("--draw", "optim.learning_rate", "log", 0.001, 0.05, "--draw", "train.batch_size", "int", 2, 90)
    names = ["learning_rate=0.01208,batch_size=47", "learning_rate=0.001174,batch_size=26"]
    assert list(make_trials(monkeypatch, "--random=2", *draws)) == names


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.sampled_from(("uniform", "log", "int")),
    st.lists(st.integers(1, 10**6), min_size=2, max_size=2, unique=True).map(sorted),
    st.integers(0, 99),
)
def test_rounded_draws_stay_within_the_bounds(kind, bounds, seed):
    low, high = (bound if kind == "int" else bound / 1000 for bound in bounds)
    draw = command.make_draw(kind, str(low), str(high))
    assert low <= float(draw(np.random.default_rng(seed))) <= high


def test_every_trial_has_its_own_folder():
    trials = [
        {"optim.learning_rate": "0.1", "augment.mixup": "0.2"},
        {"optim.learning_rate": "0.2", "augment.mixup": "0.1"},
        {"model.kwargs.widths": "(4, 8)"},
        {"model.kwargs.widths": "(4,_8)"},
        {"a.x": "1", "b.x": "2"},
        {"c.x": "1", "b.x": "2"},
        {"init_from": "runs/" + 200 * "a"},
        {"init_from": "runs/" + 201 * "a"},
        {},
    ]
    names = [command.trial_name(trial) for trial in trials]
    assert names[0] == "mixup=0.2,learning_rate=0.1" and names[-1] == "baseline"
    assert command.trial_name(dict(reversed(trials[0].items()))) == names[0]
    assert len(set(names)) == len(names) and all("/" not in n and len(n) < 120 for n in names)


def draw(*how):
    return ("--random", "2", "--draw", "optim.momentum", *how)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "nothing to try: give --grid"),
        (("--random", "3"), "--draw and --random go together"),
        (("--grid", "optim.lr", "1"), "ablation has no field optim.lr"),
        (("--grid", "data.labels", "given"), "data.labels changes how trials are evaluated"),
        (("--grid", "optim.momentum", "0.9", "abc"), "--config.optim.momentum=abc: "),
        (("--grid", "optim.momentum", "0", "--", "--config.train.stepz=3"), 'Did you mean "steps"'),
        (("--grid", "seed", "1"), "seed: the command sets this field for each run"),
        (("--grid", "optim.momentum", "0", "--grid", "optim.momentum", "1"), "optim.momentum is given twice"),
        (draw("normal", 0, 1), "unknown distribution 'normal'; there are: uniform, log, int, choice"),
        (draw("uniform", 1), "uniform needs two numbers, got '1'"),
        (draw("uniform", "a", "b"), "uniform needs two numbers, got 'a b'"),
        (draw("uniform", 2, 1), "uniform 2 1: expected a lower bound and a higher upper bound"),
        (draw("log", 0, 1), "--draw optim.momentum: log 0 1: expected a lower bound above 0"),
        (draw("uniform", 0, "inf"), "uniform 0 inf: expected"),
        (draw("int", 0.2, 0.8), "int 0.2 0.8: there is no integer"),
        (draw("choice"), "choice needs at least one value"),
        (("--config", "none", "--grid", "seed", "1"), "--config none: there is no "),
        (("--grid", "optim.momentum"), "optim.momentum: give the values to try"),
        (("--change", "optim.name", "x", "--change", "model.name", "x"), "would share the folder name=x"),
        (("--change", "data.drop_ids", "a/ids.txt"), "a/ids.txt: config.data.drop_ids takes"),
        (("--grid", "optim.momentum", "0", "--", "--config.seed=3"), "--config.seed=3 after --: the command"),
    ],
)
def test_refuses(arguments, message, tmp_path, capsys):
    assert call(command, f"--out={tmp_path / 'out'}", *arguments) == 2
    assert message in capsys.readouterr().err and not any(tmp_path.iterdir())


# --- training and comparison ---


@pytest.fixture
def sweep(linear_network, plain_trainings, tiny_data, monkeypatch):
    """Returns sweep(out, ..., flags=()) -> (exit code, trained trials and seeds)."""

    def shrink(config):
        config.model.name, config.model.kwargs = "linear", {}

    def run(out, *arguments, flags=()):
        words = (f"--data={tiny_data}", f"--out={out}", *arguments, "--", *SMALL, *flags)
        code, commands = run_within(monkeypatch, command, shrink, *words)
        return code, [(workdir.parent.name, config.seed) for workdir, config in commands.trained]

    return run


def test_a_baseline_is_compared_with_every_trial_under_every_seed(sweep, tiny_data, tmp_path, capsys):
    out, listed = tmp_path / "out", tmp_path / "ids.txt"
    listed.write_text(f"{read.load(tiny_data, 'train').ids[3]}\n")
    assert sweep(out, "--baseline", "--seeds", "4", "5", "--change", "data.drop_ids", listed)[0] == 0
    results = json.loads((out / "results.json").read_text())
    assert (results["split"], results["images"], results["seeds"]) == ("validation", 28, [4, 5])
    assert (results["baseline"], results["failed"]) == ("baseline", [])
    fields = [{}, {"data.drop_ids": str(listed)}]
    assert [row["fields"] for row in results["trials"].values()] == fields
    digests = [None, exclude_list.read(listed).digest]
    for (key, row), digest in zip(results["trials"].items(), digests, strict=True):
        assert key == command.trial_name(row["fields"])
        for seed, value in zip((4, 5), row["accuracy"]["values"], strict=True):
            folder = out / key / f"seed_{seed}"
            run = json.loads((folder / "config.json").read_text())
            assert (run["seed"], run["train.epochs"], run["drop_ids_hash"]) == (seed, 2, digest)
            assert [e["step"] for e in read_records(folder) if e["kind"] == "eval"] == [10]
            found = predictions_file.read(folder / "report" / "predictions.csv")
            assert value == pytest.approx(classification.accuracy(found.probs, found.labels))
    baseline, trial = (row["accuracy"] for row in results["trials"].values())
    assert trial["difference"] == pytest.approx(trial["mean"] - baseline["mean"])
    assert trial["interval_95"][0] <= trial["difference"] <= trial["interval_95"][1]
    page = (out / "results.md").read_text()
    assert page in capsys.readouterr().out and (out / "differences.png").stat().st_size
    called, where = page.splitlines()[0].split("`")[1:]
    assert called.startswith("fer-jax sweep ") and f"--out={out}" in called
    assert where.endswith(f", {jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}")


def test_a_failed_baseline_ends_the_sweep(sweep, tmp_path, capsys):
    (tmp_path / "baseline" / "seed_0").mkdir(parents=True)
    (tmp_path / "baseline" / "seed_0" / "notes.txt").touch()
    code, trained = sweep(tmp_path, "--baseline", "--change", "optim.momentum", "0.5")
    assert code == 1 and trained == [("baseline", 0)]
    assert "is not empty, and not a run of fer_jax" in capsys.readouterr().err


def test_a_folder_that_cannot_be_is_refused_before_any_training(sweep, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert sweep(tmp_path / "file", "--grid", "optim.momentum", "0.5", "0.9") == (2, [])
    assert f"cannot write to {tmp_path / 'file'}" in capsys.readouterr().err


def test_trains_ranks_and_resumes(sweep, tmp_path, capsys, monkeypatch):
    """A trial with an infinite loss fails, the others continue, and a seed is added later."""
    out = tmp_path / "out"
    assert sweep(out, "--grid", "optim.learning_rate", "0.01", "0.05", "1e38")[0] == 1
    printed = capsys.readouterr()
    assert "learning_rate=1e38 failed" in printed.err
    results = json.loads((out / "results.json").read_text())
    assert results["failed"] == ["learning_rate=1e38"] and results["seeds"] == [0]
    assert set(results["trials"]) == {"learning_rate=0.01", "learning_rate=0.05"}
    means = [row["accuracy"]["mean"] for row in results["trials"].values()]
    assert means == sorted(means, reverse=True) and (out / "sweep.png").stat().st_size
    page = (out / "results.md").read_text()
    assert page in printed.out and "28 images of `validation`, 2 trials." in page
    assert "Failed: learning_rate=1e38." in page

    # Stopped when only one of two trials has a second seed: the ranking uses the common seed.
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
    # The third value has no folder yet, and is trained first.
    more = ("--grid", "optim.momentum", "0.7", "0.5", "0.9")
    assert sweep(tmp_path, *more, flags=["--config.optim.weight_decay=0.01"]) == (2, [])
    assert sweep(tmp_path, *more[:3], flags=["--config.optim.weight_decay=0.01"]) == (2, [])
    refusal = capsys.readouterr().err
    assert "momentum=0.5/seed_0 belongs to a run with another config" in refusal
    assert "optim.weight_decay: 0.0005 there, 0.01 here" in refusal and "give another --out" in refusal
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert sweep(tmp_path, "--grid", "optim.momentum", "0.9")[0] == 0
    assert list(json.loads((tmp_path / "results.json").read_text())["trials"]) == ["momentum=0.9"]


@pytest.mark.parametrize(
    ("results", "code"),
    [
        # Both the folder of the trial and the file that it needs are missing.
        ({"seeds": [0], "trials": {"drop_ids=x": {"fields": {"data.drop_ids": "x"}}}}, 0),
        ({"seeds": [0]}, 2),
        ([], 2),
    ],
)
def test_what_is_left_of_an_earlier_sweep(results, code, tiny_data, tmp_path, capsys):
    (tmp_path / "results.json").write_text(json.dumps(results))
    words = (f"--out={tmp_path}", f"--data={tiny_data}", "--dry-run", "--grid", "optim.momentum", "0.5")
    assert call(command, *words) == code
    assert ("results.json is not the results of a sweep" in capsys.readouterr().err) == bool(code)


def test_a_dry_run_lists_the_trainings_from_any_directory(tiny_data, tmp_path, monkeypatch, capsys):
    """The experiment is found in the package."""
    monkeypatch.chdir(tmp_path)
    words = (f"--out={tmp_path / 'out'}", f"--data={tiny_data}", "--dry-run", "--seeds", "3", "4")
    assert call(command, *words, "--grid", "optim.momentum", "0.5") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert f"ablation.py --workdir {tmp_path}/out/momentum=0.5/seed_3 " in first
    assert first.startswith("$ fer-jax train --config /") and "--config.optim.momentum=0.5" in first
    assert "seed_4" in second and not any(tmp_path.iterdir())
