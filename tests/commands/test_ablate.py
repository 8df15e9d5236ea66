"""fer-jax ablate at toy size, its trainings within this process."""

import contextlib
import csv
import io
import json
import shutil

import jax
import numpy as np
import pytest
from helpers import call, run_command, run_within, script

from configs.ablation import get_config
from fer_jax.data import exclude_list
from fer_jax.data.dataset import builder
from fer_jax.training import validate
from fer_jax.training.metric_writers import read_records

pytestmark = pytest.mark.usefixtures("linear_network", "plain_trainings")

SMALL = ("--config.model.input_size=16", "--config.train.batch_size=14", "--config.train.epochs=2")


def ids(done):
    """The list that drop_ids leaves out."""
    return done[0].with_name("ids.txt")


def ablate(data, out, *arguments):
    """The exit code."""

    def shrink(config):
        config.model.name, config.model.kwargs = "linear", {}

    with pytest.MonkeyPatch.context() as patch:
        words = (f"--data={data}", f"--out={out}", *arguments, "--", *SMALL)
        return run_within(patch, script("ablate"), shrink, *words)[0]


@pytest.fixture(scope="module")
def done(linear_network, plain_trainings, tiny_data, tmp_path_factory):
    """Two seeds of a recipe beside the baseline: the folder, and what was printed."""
    out = tmp_path_factory.mktemp("ablation") / "out"
    out.with_name("ids.txt").write_text(f"{builder.load(tiny_data, 'train').ids[3]}\n")
    arguments = ("--seeds", "4", "5", "--recipes", "--drop_ids", out.with_name("ids.txt"))
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert ablate(tiny_data, out, *arguments) == 0
    return out, printed.getvalue()


def test_every_recipe_is_trained_with_every_seed(done):
    for name, digest in (("baseline", None), ("drop_ids", exclude_list.read_ids(ids(done)).digest)):
        for seed in (4, 5):
            run = json.loads((done[0] / name / f"seed_{seed}" / "config.json").read_text())
            assert (run["seed"], run["model.input_size"], run["train.epochs"]) == (seed, 16, 2)
            assert run["drop_ids_hash"] == digest
            assert [
                e["step"] for e in read_records(done[0] / name / f"seed_{seed}") if e["kind"] == "eval"
            ] == [10]


def test_the_results_are_those_of_the_runs_predictions(done):
    out, printed = done
    results = json.loads((out / "results.json").read_text())
    assert (results["split"], results["images"], results["seeds"]) == ("validation", 28, [4, 5])
    assert list(results["recipes"]) == ["baseline", "drop_ids"] and results["failed"] == []
    assert results["recipes"]["drop_ids"]["flags"] == [f"--config.data.drop_ids={ids(done)}"]
    means = {}
    for name, row in results["recipes"].items():
        expected = []
        for seed in (4, 5):
            with open(out / name / f"seed_{seed}" / "report" / "predictions.csv") as file:
                expected.append(
                    np.mean([line["label"] == line["prediction"] for line in csv.DictReader(file)])
                )
        assert row["accuracy"]["values"] == pytest.approx(expected)
        means[name] = np.mean(expected)
    difference = results["recipes"]["drop_ids"]["accuracy"]
    assert difference["difference"] == pytest.approx(means["drop_ids"] - means["baseline"])
    low, high = difference["interval_95"]
    assert low <= difference["difference"] <= high
    page = (out / "results.md").read_text()
    assert page in printed
    command, where = page.splitlines()[0].split("`")[1:]
    assert command.startswith("fer-jax ablate ") and f"--out={out}" in command
    assert where.endswith(f", {jax.device_count()} x {jax.devices()[0].device_kind}, jax {jax.__version__}")
    values = ", ".join(f"{100 * v:.2f}" for v in results["recipes"]["baseline"]["ece"]["values"])
    assert f"({values})" in next(line for line in page.splitlines() if line.startswith("| baseline |"))
    assert (out / "differences.png").stat().st_size


def test_a_recipe_that_fails_is_named_and_finished_runs_are_recognised(done, tiny_data, tmp_path, capsys):
    """The recipe's folder holds something else than a run."""
    out = shutil.copytree(done[0], tmp_path / "out")
    (out / "drop_ids" / "seed_4" / "config.json").unlink()
    runs = sorted(out.glob("*/*/summary.json"))
    before = [path.stat().st_mtime_ns for path in runs]
    assert ablate(tiny_data, out, "--seeds=4", "--recipes", "--drop_ids", ids(done)) == 1
    assert "is not empty and no run of fer_jax" in capsys.readouterr().err
    page = (out / "results.md").read_text()
    assert "Failed: drop_ids." in page and "| baseline |" in page and "| drop_ids |" not in page
    assert [path.stat().st_mtime_ns for path in runs] == before and len(runs) == 4


def test_another_list_is_refused_before_anything_is_touched(done, tiny_data, tmp_path, capsys):
    other = tmp_path / "ids.txt"
    other.write_text(f"{builder.load(tiny_data, 'train').ids[4]}\n")
    before = {path: path.read_bytes() for path in done[0].rglob("*") if path.is_file()}
    assert ablate(tiny_data, done[0], "--seeds", "3", "4", "--recipes", "--drop_ids", other) == 2
    refusal = capsys.readouterr().err
    assert "drop_ids_hash:" in refusal and "give another --out" in refusal
    assert {path: path.read_bytes() for path in done[0].rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("change", script("ablate").RECIPES.values())
def test_every_recipe_changes_a_field_of_the_config(change):
    name, value = change.split("=")
    config = get_config()
    before = dict(config.items())[name.split(".")[0]][name.split(".")[1]]
    assert before in (0.0, "none", "")
    config.update_from_flattened_dict({name: type(before)(value)})
    validate.check(config)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--drop_ids", "a/ids.txt", "b/ids.csv"), "--drop_ids has two files for drop_ids"),
        (("--drop_ids", "a/ids.txt"), "/a/ids.txt: config.data.drop_ids takes"),
        (("--", "--config.optim.name=adamax"), "config.optim.name is 'adamax'; there are: sgd"),
        (("--", "--config.seed=3"), "--config.seed=3 after --: the command sets this for each training"),
    ],
)
def test_refuses(arguments, message, tmp_path, capsys):
    assert call(script("ablate"), f"--out={tmp_path}", *arguments) == 2
    assert message in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_an_unknown_recipe_is_refused(tmp_path):
    """As a process: the script starts by itself."""
    process = run_command("ablate", f"--out={tmp_path}", "--recipes", "cutout")
    assert process.returncode == 2 and not any(tmp_path.iterdir())
    assert "--recipes cutout: there are label_smoothing, mixup" in process.stderr
