"""scripts/train_best.py at toy size, its commands run within this process."""

import json

import pytest
from helpers import TrainingsWithin, run_python, run_within, script

from fer_jax import checkpoints
from fer_jax.monitor import EXIT_PREEMPTED

pytestmark = pytest.mark.usefixtures("compiled_quickly", "undrawn")


def shrink(config):
    small = {"train.steps": 2, "train.batch_size": 14, "model.input_size": 16, "optim.warmup_epochs": 0.0}
    config.update_from_flattened_dict(small)
    shallow = {"blocks": (1, 0)} if "blocks" in config.model.kwargs else {"depths": (1, 1)}
    config.model.kwargs.update(widths=(4, 4), **shallow)


@pytest.fixture
def best(monkeypatch, tiny_data):
    """best(out, ...) -> the exit code, and group and configuration of the trainings, of two networks."""
    module = script("train_best")
    monkeypatch.setattr(module, "OTHERS", ["plain"])

    def run(out, *arguments):
        words = (f"--out={out}", f"--data={tiny_data}", *arguments)
        code, commands = run_within(monkeypatch, module, shrink, *words)
        return code, [(workdir.parent.name, config) for workdir, config in commands.trained]

    return run


def test_trains_joins_and_distils(best, tiny_ferplus, tmp_path):
    out = tmp_path / "out"
    code, trained = best(out, f"--ferplus={tiny_ferplus}", "--seeds=3")
    assert code == 0
    assert [group for group, _ in trained] == ["residual", "plain", "ferplus", "distilled"]
    assert {config.seed for _, config in trained} == {3}
    labels = {group: config.data.labels for group, config in trained}
    assert labels.pop("ferplus") == "ferplus_votes" and set(labels.values()) == {"given"}

    chosen = json.loads((out / "ensemble" / "ensemble.json").read_text())
    members = sorted(chosen["networks"][place].split("/")[0] for place in chosen["members"])
    teachers = trained[-1][1].distill.teachers
    assert [path.split("/")[-2] for path in teachers] == members and "ferplus" not in members
    taught = "seed_3_by_" + "+".join(f"{member}_seed_3" for member in members)
    _, facts = checkpoints.load_weights(out / "distilled" / taught)
    assert len(facts["ancestors"]) == len(members)

    page = (out / "results.md").read_text()
    for run in ("residual/seed_3", "plain/seed_3", "ferplus/seed_3", f"distilled/{taught}"):
        assert f"| {run} |" in page
        report = json.loads((out / run / "mirrored" / "report.json").read_text())
        assert f"{100 * report['accuracy']:.2f} (" in page and report["tta"] == "flip"
    assert page.count("extra annotations") == 1 and "ensemble/ensemble.png" in page


def test_stops_where_a_training_was_stopped(best, tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingsWithin, "train", lambda *_: EXIT_PREEMPTED)
    assert best(tmp_path) == (EXIT_PREEMPTED, [])


def test_votes_are_asked_for_before_the_first_training(best, tiny_data, tmp_path, capsys):
    for data, message in ((tmp_path / "typo", "is not a prepared dataset"), (tiny_data, "has no FER+ votes")):
        assert best(tmp_path / "out", f"--ferplus={data}") == (2, [])
        assert message in capsys.readouterr().err


def test_its_own_flags_are_not_for_the_trainings(tmp_path):
    process = run_python("scripts/train_best.py", f"--out={tmp_path}", "--", "--config.seed=1")
    assert process.returncode == 2 and "sets this for each training itself" in process.stderr
