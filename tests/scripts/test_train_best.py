"""scripts/train_best.py at toy size, its commands run within this process."""

import importlib.util
import json
import sys

import pytest
from helpers import ROOT, run_python

from fer_jax import checkpoints
from fer_jax.monitor import EXIT_PREEMPTED
from fer_jax.train import train_and_evaluate

pytestmark = pytest.mark.usefixtures("compiled_quickly", "undrawn")


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def best(monkeypatch):
    """The script, of two networks, whose trainings are narrow and short."""
    module = script("train_best")
    monkeypatch.setattr(module, "OTHERS", ["plain"])

    class Within:
        trained: list = []

        def train(self, config, workdir, *flags):
            small = ["--config.train.steps=2", "--config.train.batch_size=14", "--config.model.input_size=16"]
            config = module.trainings.load_config(config, [*flags, *small])
            config.optim.warmup_epochs = 0.0
            shallow = {"blocks": (1, 0)} if "blocks" in config.model.kwargs else {"depths": (1, 1)}
            config.model.kwargs.update(widths=(4, 4), **shallow)
            self.trained.append((workdir.parent.name, config))
            train_and_evaluate(config, workdir)
            return 0

        def run(self, python, path, *arguments):
            return script(path.removeprefix("scripts/").removesuffix(".py")).main(list(arguments))

    monkeypatch.setattr(module.trainings, "Commands", Within)
    monkeypatch.setattr(module.trainings, "origin", lambda: "by hand")
    return module


def test_trains_joins_and_distils(best, tiny_data, tiny_ferplus, tmp_path, monkeypatch):
    out = tmp_path / "out"
    flags = [f"--out={out}", f"--data={tiny_data}", f"--ferplus={tiny_ferplus}", "--seeds=3"]
    monkeypatch.setattr(sys, "argv", ["train_best.py", *flags])
    assert best.main() == 0
    trained = best.trainings.Commands.trained
    assert [group for group, _ in trained] == ["residual", "plain", "ferplus", "distilled"]
    assert {config.seed for _, config in trained} == {3}
    labels = {group: config.data.labels for group, config in trained}
    assert labels.pop("ferplus") == "ferplus_votes" and set(labels.values()) == {"given"}

    chosen = json.loads((out / "ensemble" / "ensemble.json").read_text())
    members = [chosen["networks"][place].split("/")[0] for place in chosen["members"]]
    teachers = trained[-1][1].distill.teachers
    assert [path.split("/")[-2] for path in teachers] == members and "ferplus" not in members
    _, facts = checkpoints.load_weights(out / "distilled" / "seed_3")
    assert len(facts["ancestors"]) == len(members)

    page = (out / "results.md").read_text()
    for group in ("residual", "plain", "ferplus", "distilled"):
        assert f"| {group}/seed_3 |" in page
        report = json.loads((out / group / "seed_3" / "mirrored" / "report.json").read_text())
        assert f"{100 * report['accuracy']:.2f} (" in page and report["tta"] == "flip"
    assert page.count("extra annotations") == 1 and "ensemble/ensemble.png" in page


def test_stops_where_a_training_was_stopped(best, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setattr(best.trainings.Commands, "train", lambda *_: EXIT_PREEMPTED)
    monkeypatch.setattr(sys, "argv", ["train_best.py", f"--out={tmp_path}", f"--data={tiny_data}"])
    assert best.main() == EXIT_PREEMPTED


def test_its_own_flags_are_not_for_the_trainings(tmp_path):
    process = run_python("scripts/train_best.py", f"--out={tmp_path}", "--", "--config.seed=1")
    assert process.returncode == 2 and "sets this for each training itself" in process.stderr
