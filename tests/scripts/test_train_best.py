"""scripts/train_best.py at toy size, its commands run within this process."""

import json
import shutil

import numpy as np
import pytest
from helpers import TrainingsWithin, call, run_python, run_within, script

from configs.best import NETWORKS
from configs.default import augmentation
from fer_jax import checkpoints
from fer_jax.monitor import EXIT_PREEMPTED

pytestmark = pytest.mark.usefixtures("linear_network", "plain_trainings")


def shrink(config):
    small = {"train.steps": 2, "train.batch_size": 14, "model.input_size": 16, "optim.warmup_epochs": 0.0}
    config.update_from_flattened_dict(small)
    config.augment = augmentation("none")
    # Networks that differ with the configuration and the seed.
    config.model.name, config.model.kwargs = "linear", {"spread": config.model.kwargs.widths[0] / 10}


@pytest.fixture
def best(monkeypatch, tiny_data):
    """best(out, ...) -> the exit code, and group and configuration of the trainings, of two networks."""

    def run(out, *arguments):
        words = ("--config=configs/best_small.py", f"--out={out}", f"--data={tiny_data}", *arguments)
        code, commands = run_within(monkeypatch, script("train_best"), shrink, *words)
        return code, [(workdir.parent.name, config) for workdir, config in commands.trained]

    return run


def test_trains_joins_and_distils(best, tiny_ferplus, tmp_path):
    out = tmp_path / "out"
    code, trained = best(out, f"--ferplus={tiny_ferplus}", "--seeds", "3", "4")
    assert code == 0
    groups = ["small"] * 2 + ["tiny"] * 2 + ["ferplus"] * 2 + ["distilled"]
    assert [group for group, _ in trained] == groups
    assert [config.seed for _, config in trained] == [3, 4, 3, 4, 3, 4, 3]
    labels = {group: config.data.labels for group, config in trained}
    assert labels.pop("ferplus") == "ferplus_votes" and set(labels.values()) == {"given"}

    chosen = json.loads((out / "ensemble" / "ensemble.json").read_text())
    members = sorted("_".join(chosen["networks"][place].split("/")[:2]) for place in chosen["members"])
    teachers = trained[-1][1].distill.teachers
    assert ["_".join(path.split("/")[-2:]) for path in teachers] == members
    assert not any("ferplus" in member for member in members)
    taught = "seed_3_by_" + "+".join(members)
    _, facts = checkpoints.load_weights(out / "distilled" / taught)
    assert len(facts["ancestors"]) == len(members)

    page = (out / "results.md").read_text()

    def accuracy(run, part="mirrored"):
        report = json.loads((out / run / part / "report.json").read_text())
        assert report["tta"] == ("flip" if part == "mirrored" else "none")
        return 100 * report["accuracy"]

    for group in ("small", "tiny", "ferplus"):
        pair = [accuracy(f"{group}/seed_{seed}") for seed in (3, 4)]
        assert f"{np.mean(pair):.2f} ± {np.std(pair, ddof=1):.2f}" in page
    for run in ("small/seed_3", "tiny/seed_4", "ferplus/seed_3", f"distilled/{taught}"):
        assert f"| {run} |" in page and f"{accuracy(run):.2f} (" in page
    assert "ensemble/ensemble.png" in page

    for part, judge in (("judged", "FER2013's labels"), ("by_majority", "the majority of the votes")):
        apart = [accuracy(f"ferplus/seed_{s}", part) - accuracy(f"small/seed_{s}", part) for s in (3, 4)]
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {judge} |")]
        assert f"{np.mean(apart):+.2f} (" in row
    single, joined = accuracy("small/seed_3"), 100 * chosen["figures"]["accuracy"]
    gained = f"{accuracy(f'distilled/{taught}'):.2f} % ({accuracy(f'distilled/{taught}') - single:+.2f}"
    assert f"small/seed_3 {single:.2f} %, the ensemble {joined:.2f} % ({joined - single:+.2f})" in page
    assert f"the same network taught by it {gained}" in page

    # Again: nothing is trained anew, and the page is the same.
    before = {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")}
    assert best(out, f"--ferplus={tiny_ferplus}", "--seeds", "3", "4")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("summary.json")} == before
    assert (out / "results.md").read_text() == page


def test_votes_of_other_images_are_refused(best, tiny_ferplus, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(tiny_ferplus, other)
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["splits"]["validation"]["hash"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    assert best(tmp_path / "out", f"--ferplus={other}") == (2, [])
    assert "has another validation split than" in capsys.readouterr().err


def test_stops_where_a_training_was_stopped(best, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingsWithin, "train", lambda *_: EXIT_PREEMPTED)
    assert best(tmp_path) == (EXIT_PREEMPTED, [])


def test_votes_are_asked_for_before_the_first_training(best, tiny_data, tmp_path, capsys):
    for data, message in ((tmp_path / "typo", "is not a prepared dataset"), (tiny_data, "has no FER+ votes")):
        assert best(tmp_path / "out", f"--ferplus={data}") == (2, [])
        assert message in capsys.readouterr().err


def test_the_networks_are_those_of_the_configuration():
    assert script("train_best").networks_of("configs/best.py") == list(NETWORKS)


def test_a_folder_of_another_configuration_is_refused_before_the_first_training(
    best, tiny_ferplus, tmp_path, capsys
):
    out = tmp_path / "out"
    (out / "residual" / "seed_0").mkdir(parents=True)
    assert best(out) == (2, [])
    assert "has residual, which configs/best_small.py has not: give another --out" in capsys.readouterr().err
    out = tmp_path / "again"
    taken = out / "ferplus" / "seed_4"
    (taken / "checkpoints" / "2").mkdir(parents=True)
    (taken / "config.json").write_text('{"seed": 4}')
    assert best(out, f"--ferplus={tiny_ferplus}", "--seeds", "3", "4") == (2, [])
    assert f"{taken} belongs to a run with another configuration" in capsys.readouterr().err


@pytest.mark.parametrize(
    "config, message",
    [
        ("configs/none.py", "configs/none.py: there is no "),
        ("configs/cnn.py", "configs/cnn.py has no NETWORKS"),
    ],
)
def test_a_configuration_of_networks_is_expected(config, message, tmp_path, capsys):
    assert call(script("train_best"), f"--config={config}", f"--out={tmp_path}") == 2
    assert f"error: --config {message}" in capsys.readouterr().err


def test_its_own_flags_are_not_for_the_trainings(tmp_path):
    process = run_python("scripts/train_best.py", f"--out={tmp_path}", "--", "--config.seed=1")
    assert process.returncode == 2 and "sets this for each training itself" in process.stderr
