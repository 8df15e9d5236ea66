"""The real loop on tiny files from disk: outcome, resume, and the ways a run ends early."""

import hashlib
import json
import logging
import math
import re
import shutil
import signal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import (
    TIMES,
    assert_same_run,
    assert_trees_equal,
    raw_state,
    records,
    run_python,
    tiny_config,
)
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator

from fer_jax import models
from fer_jax.data.dataset import build as dataset_build
from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import leakage_policy
from fer_jax.pretrained import registry
from fer_jax.training import build, sharding
from fer_jax.training import run_dir as workdir_module
from fer_jax.training.metric_writers import read_records
from fer_jax.training.monitoring import EXIT_PREEMPTED, NonFiniteLossError, PreemptedError, Window
from fer_jax.training.train import Run, train_and_evaluate
from fer_jax.weights_file import load_weights

pytestmark = pytest.mark.usefixtures("linear_network")

# With all that a resumed run could get wrong: statistics, dropout, averaged weights, drawn augmentations.
SMALL = {
    "model.kwargs": {"widths": (4, 8), "depths": (1, 1), "hidden": 8, "dropout": 0.2},
    "checkpoint.every_steps": 3,
}
BIASES = (0.1, 0.2, 0.3, 2.0, -0.4, 0.0, 0.5)


class Constant(nn.Module):
    """Says `happy` of every face; nothing that is learnt changes its logits."""

    num_classes: int = 7
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        unused = self.param("unused", nn.initializers.ones, (1,))
        return jnp.tile(jnp.float32(BIASES), (len(x), 1)) + 0 * unused


@pytest.fixture(autouse=True)
def _fake_models(monkeypatch):
    monkeypatch.setitem(models.MODELS, "constant", Constant)


def simple_config(data, **changes):
    """`tiny_config` with the linear model."""
    simple = {"model.name": "linear", "train.ema_decay": 0.0, "loss.class_weights": "none"}
    config = tiny_config(data, **simple, **{"optim.warmup_epochs": 0.0})
    config.model.kwargs = {}
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def whole(tiny_data, tmp_path_factory):
    """A run that nothing interrupted: work directory and summary. Not to be changed."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    return workdir, train_and_evaluate(tiny_config(tiny_data, **SMALL), workdir)


# -------------------- a run --------------------


def test_a_run_leaves_what_it_promises(whole, tiny_data):
    workdir, summary = whole
    assert {path.name for path in workdir.iterdir()} == {
        "augmented_faces.png",
        "best.safetensors",
        "checkpoints",
        "config.json",
        "last.safetensors",
        "metrics.jsonl",
        "report",
        "starts.jsonl",
        "summary.json",
        "tensorboard",
        "training_curves.png",
    }
    assert json.loads((workdir / "summary.json").read_text()) == summary
    evaluations = [r for r in records(workdir) if r["kind"] == "eval"]
    assert [r["step"] for r in evaluations] == [4, 9, 10]
    best = max(evaluations, key=lambda r: r["accuracy"])  # the first of equals
    assert summary["best"] == {
        "split": "validation",
        "metric": "accuracy",
        "value": best["accuracy"],
        "step": best["step"],
        "epoch": round(best["step"] * 16 / 70, 2),
    }
    assert summary["accuracy"] == best["accuracy"] and summary["macro_f1"] == best["macro_f1"]
    assert (summary["steps"], summary["stopped_early"]) == (10, False)
    assert 0 <= summary["input_wait"] <= 1 and summary["seconds"] > 0
    report = json.loads((workdir / "report" / "report.json").read_text())
    assert report["accuracy"] == best["accuracy"]
    assert report["split"] == "validation" and report["num_examples"] == 28
    assert report["data_hash"] == read.read_manifest(tiny_data)["content_hash"]
    assert report["emotions"] == list(EMOTIONS)
    assert (report["labels"], report["annotations"]) == ("given", [])
    # Newest two and best.
    steps = {int(path.name) for path in (workdir / "checkpoints").iterdir()}
    assert steps == {9, 10, best["step"]}
    assert not list(workdir.rglob("*.partial"))


def test_a_run_on_ferplus_with_eight_classes(tiny_ferplus, tmp_path):
    config = simple_config(
        tiny_ferplus, **{"data.labels": "ferplus_majority", "data.num_classes": 8, "train.steps": 2}
    )
    train_and_evaluate(config, tmp_path / "run")
    variables, facts = load_weights(tmp_path / "run")
    assert variables["params"]["Dense_0"]["kernel"].shape == (1, 8)
    assert facts["emotions"] == [*EMOTIONS, "contempt"]
    assert (facts["labels"], facts["annotations"]) == ("ferplus_majority", ["ferplus"])
    report = json.loads((tmp_path / "run" / "report" / "report.json").read_text())
    # Of validation's four neutral faces two have contempt.
    support = {name: row["support"] for name, row in report["per_class"].items()}
    assert support == dict.fromkeys(EMOTIONS, 4) | {"neutral": 2, "contempt": 2}
    header = (tmp_path / "run" / "report" / "predictions.csv").read_text().splitlines()[0]
    assert header == "id,label,prediction," + ",".join([*EMOTIONS, "contempt", "group", "copy"])


@pytest.mark.parametrize("classes, train, validation", [(7, 65, 26), (8, 70, 28)])
def test_soft_labels_reach_the_batches(classes, train, validation, tiny_ferplus, tmp_path):
    config = simple_config(tiny_ferplus, **{"data.labels": "ferplus_votes", "data.num_classes": classes})
    run = Run(config, tmp_path / "run", read.read_manifest(tiny_ferplus), [])
    try:
        assert run.stream.batches_per_epoch == train / config.train.batch_size
        assert len(run.selection) == validation
        targets = next(run.stream)["target"]
        # Six votes for the one, two for the other: unknown is no class.
        expected = np.sort(np.eye(classes)[:1] * 0.75 + np.eye(classes)[1:2] * 0.25)
        np.testing.assert_array_equal(np.sort(targets), np.repeat(expected, len(targets), axis=0))
    finally:
        run.close()


def test_given_labels_of_data_with_votes(tiny_ferplus, tiny_data):
    config = simple_config(tiny_ferplus)
    voted = build.load_split(config, "validation")
    plain = build.load_split(simple_config(tiny_data), "validation")
    np.testing.assert_array_equal(voted.labels, plain.labels)
    np.testing.assert_array_equal(voted.targets, plain.targets)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"data.labels": "majority"}, "data.labels is 'majority'; there are: given, ferplus_majority"),
        ({"data.num_classes": 8}, "num_classes=8 needs labels that know contempt"),
        ({"data.num_classes": 5}, "num_classes is 5; expected 7 or 8"),
        ({"data.labels": "ferplus_votes"}, "has no FER\\+ votes: prepare it with .* --ferplus"),
    ],
)
def test_labels_that_there_are_not(changes, message, tiny_data, tmp_path):
    with pytest.raises(ValueError, match=message):
        train_and_evaluate(simple_config(tiny_data, **changes), tmp_path / "run")


def test_training_numbers_are_reported_at_the_asked_steps(whole):
    training = [r for r in read_records(whole[0]) if r["kind"] == "train"]
    assert [r["step"] for r in training] == [2, 4, 6, 8, 9, 10]
    # Warm-up over half an epoch, which is 2 steps, then a cosine over the other 8.
    expected = [0.025, *(0.025 * (1 + math.cos(math.pi * n / 8)) for n in (1, 3, 5, 6, 7))]
    assert [r["learning_rate"] for r in training] == pytest.approx(expected, rel=1e-5)
    for record in training:
        assert record["epoch"] == round(record["step"] * 16 / 70, 4)
        assert record["seconds"] > 0 and 0 <= record["input_wait"] <= 1
        steps = 1 if record["step"] in (9, 10) else 2
        speed = steps * 16 / record["seconds"]
        assert record["images_per_second"] == pytest.approx(speed)


def test_tensorboard_has_what_the_run_shows(whole):
    events = event_accumulator.EventAccumulator(str(whole[0] / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["tensors"])
    training = {"loss", "accuracy", "learning_rate", "grad_norm", "images_per_second"}
    evaluation = {"loss", "accuracy", "balanced_accuracy", "macro_f1"}
    assert tags >= {f"train/{name}" for name in training} | {f"eval/{name}" for name in evaluation}
    assert tags >= {"augmented_faces", "confusion_matrix"}
    (hparams,) = (events.summary_metadata["_hparams_/session_start_info"].plugin_data.plugin_name,)
    assert hparams == "hparams"
    steps = [event.step for event in events.Tensors("eval/accuracy")]
    assert steps == [4, 9, 10]


def test_the_best_weights_give_the_reported_predictions(whole, tiny_data):
    workdir, summary = whole
    variables, facts = load_weights(workdir)
    assert facts["selection"] == summary["best"] and facts["ema"] is True
    assert facts["parameters"] == sum(p.size for p in jax.tree.leaves(variables["params"]))
    model = models.create(facts["model"]["name"], **facts["model"]["kwargs"])
    faces = read.load(tiny_data, "validation")
    # 48 to 16 pixels is a mean over 3 x 3.
    x = faces.images.reshape(-1, 16, 3, 16, 3, 1).mean(axis=(2, 4)) / 255
    x = (x - facts["preprocess"]["mean"]) / facts["preprocess"]["std"]
    logits = jax.jit(model.apply)(variables, jnp.float32(x))
    accuracy = np.mean(np.argmax(logits, axis=1) == faces.labels)
    assert accuracy == summary["accuracy"]
    rows = np.loadtxt(workdir / "report" / "predictions.csv", delimiter=",", skiprows=1, usecols=range(3, 10))
    np.testing.assert_allclose(rows, nn.softmax(logits), atol=1e-4)


def test_a_finished_run_says_so_and_changes_nothing(whole, tiny_data, caplog):
    workdir, summary = whole
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    with caplog.at_level(logging.INFO):
        again = train_and_evaluate(tiny_config(tiny_data, **SMALL), workdir)
    assert again == summary
    assert f"this run is finished; its report is {workdir / 'report' / 'report.md'}" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


def test_another_config_is_refused(whole, tiny_data):
    workdir, _ = whole
    changed = tiny_config(tiny_data, **SMALL, **{"optim.learning_rate": 0.25, "seed": 4})
    with pytest.raises(ValueError) as error:
        train_and_evaluate(changed, workdir)
    assert "optim.learning_rate: 0.05 there, 0.25 here" in str(error.value)
    assert "seed: 0 there, 4 here" in str(error.value)


def test_a_new_run_starts_from_old_weights(tiny_data, tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    train_and_evaluate(simple_config(tiny_data, **{"train.steps": 3}), old)
    # A rate of 0 leaves them as they are.
    changes = {"init_from": str(old), "optim.learning_rate": 0.0, "train.steps": 1}
    train_and_evaluate(simple_config(tiny_data, **changes), new)
    (before, _), (after, facts) = load_weights(old), load_weights(new)
    assert_trees_equal(after, before)
    assert np.any(before["params"]["Dense_0"]["kernel"])  # the model starts at 0
    assert facts["config"]["init_from"] == str(old)
    # What had a part in the old ones has a part in these.
    old_facts = load_weights(old)[1]
    (line,) = facts["ancestors"]
    assert (line["data"], line["selection"]) == (old_facts["data"], old_facts["selection"])
    elsewhere = facts | {"trained_data": {"splits": {"train": {"hash": "x"}, "validation": {"hash": "y"}}}}
    judged = leakage_policy.assess(elsewhere | {"split": "train"}, np.zeros(70, np.int8))
    assert judged["trained_on_this_split"] is True and judged["headline"] is None
    assert [r["step"] for r in records(new)] == [1, 1]


def test_a_new_run_starts_from_a_bundled_network(tiny_data, tmp_path, monkeypatch):
    train_and_evaluate(simple_config(tiny_data, **{"train.steps": 3}), tmp_path / "old")
    monkeypatch.setitem(registry.BUNDLED, "old_one", str(tmp_path / "old" / "best.safetensors"))
    changes = {"init_from": "old_one", "optim.learning_rate": 0.0, "train.steps": 1}
    train_and_evaluate(simple_config(tiny_data, **changes), tmp_path / "new")
    assert_trees_equal(load_weights(tmp_path / "new")[0], load_weights(tmp_path / "old")[0])


def test_weights_that_are_not_there_or_do_not_fit(whole, tiny_data, tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights nowhere: .* cnn, "):
        train_and_evaluate(tiny_config(tiny_data, init_from="nowhere"), tmp_path / "a")
    config = tiny_config(tiny_data, **SMALL, init_from=str(whole[0]))
    config.model.kwargs.hidden = 16
    with pytest.raises(ValueError, match="another network .6 arrays differ"):
        train_and_evaluate(config, tmp_path / "b")


def test_a_run_that_has_saved_nothing_may_be_corrected(tiny_data, tmp_path):
    with pytest.raises(ValueError, match="class_weights is 'balance'; there are: none, balanced"):
        train_and_evaluate(simple_config(tiny_data, **{"loss.class_weights": "balance"}), tmp_path)
    train_and_evaluate(simple_config(tiny_data, **{"train.steps": 1}), tmp_path)


# -------------------- hand-computed --------------------


def test_a_constant_model_gives_the_metrics_computed_by_hand(tiny_data, tmp_path):
    config = simple_config(tiny_data, **{"model.name": "constant", "train.steps": 1})
    summary = train_and_evaluate(config, tmp_path)
    (record,) = [r for r in records(tmp_path) if r["kind"] == "eval"]
    # 4 faces of each of 7 classes, all called happy.
    total = math.log(sum(math.exp(b) for b in BIASES))
    assert record["loss"] == pytest.approx(total - sum(BIASES) / 7, rel=1e-6)
    assert record["accuracy"] == pytest.approx(1 / 7)
    assert record["balanced_accuracy"] == pytest.approx(1 / 7)
    assert record["macro_f1"] == pytest.approx(2 * (1 / 7) / (1 + 1 / 7) / 7)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    confusion = np.array(report["confusion_matrix"])
    assert confusion[:, EMOTIONS.index("happy")].tolist() == [4] * 7 and confusion.sum() == 28
    assert summary["accuracy"] == report["accuracy"] == record["accuracy"]
    # The training loss likewise, with smoothing .1: one step, whatever faces it saw.
    (train,) = [r for r in records(tmp_path) if r["kind"] == "train"]
    labels = first_labels(config, read.load(tiny_data, "train"))
    smoothed = 0.9 * np.take(BIASES, labels).mean() + 0.1 * np.mean(BIASES)
    assert train["loss"] == pytest.approx(total - smoothed, rel=1e-5)
    assert train["accuracy"] == np.mean(np.array(labels) == 3)
    assert train["grad_norm"] == 0 and train["param_norm"] == 1


def first_labels(config, faces):
    """Labels of the first batch: Grain's permutation of the first epoch, read from the stream."""
    from fer_jax.data import augment, pipeline

    stream = pipeline.TrainStream(faces, config.train.batch_size, augment.Ranges(), config.seed)
    labels = next(stream)["target"].argmax(axis=1)
    stream.close()
    return labels.tolist()


def test_early_stopping(tiny_data, tmp_path):
    changes = {"model.name": "constant", "selection.patience": 2, "train.steps": 100}
    summary = train_and_evaluate(simple_config(tiny_data, **changes), tmp_path)
    # The first evaluation is the best; two more without improvement follow, at epochs 2 and 3.
    assert summary["stopped_early"] and summary["steps"] == round(3 * 70 / 16)
    assert summary["best"]["step"] == 4


def test_the_plateau_lowers_the_rate(tiny_data, tmp_path):
    changes = {
        "model.name": "constant",
        "optim.schedule": "plateau",
        "optim.plateau_patience": 2,
        "optim.plateau_factor": 0.5,
        "optim.plateau_min_scale": 0.3,
        "train.steps": round(8 * 70 / 16),
        "log_every": 100,
    }
    train_and_evaluate(simple_config(tiny_data, **changes), tmp_path)
    rates = [r["learning_rate"] for r in records(tmp_path) if r["kind"] == "train"]
    # Evaluation 1 is the best; after 3 and 5 the rate halves, but not below .3.
    assert rates == pytest.approx([0.05] * 3 + [0.025] * 2 + [0.015] * 3, rel=1e-6)
    state = raw_state(tmp_path, 35)
    assert float(state["lr_scale"]) == pytest.approx(0.3)


def test_accumulation_schedules_updates(tiny_data, tmp_path):
    changes = {"optim.accumulate": 2, "log_every": 1, "train.steps": 6}
    train_and_evaluate(simple_config(tiny_data, **changes), tmp_path)
    rates = [r["learning_rate"] for r in records(tmp_path) if r["kind"] == "train"]
    cosine = [0.025 * (1 + math.cos(math.pi * update / 3)) for update in (0, 0, 1, 1, 2, 2)]
    assert rates == pytest.approx(cosine, rel=1e-5)
    norms = [r["param_norm"] for r in records(tmp_path) if r["kind"] == "train"]
    # Every second step changes the weights, which start at 0.
    assert norms[0] == 0 and norms[1] == norms[2] > 0 and norms[3] == norms[4] != norms[2]


def test_sizes_grow_and_mixing_ends(tiny_data, tmp_path, monkeypatch):
    sizes, mixed = [], []
    train_step, put_batch = Run.train_step, sharding.Partitioner.put_batch

    def note_size(self, size):
        sizes.append(size)
        return train_step(self, size)

    def note_mixing(self, batch):
        mixed.append(bool((batch["mix"][:, 0] < 1).any()))
        return put_batch(self, batch)

    monkeypatch.setattr(Run, "train_step", note_size)
    monkeypatch.setattr(sharding.Partitioner, "put_batch", note_mixing)
    changes = {
        "train.sizes": ((0.2, 8), (0.5, 12)),
        "augment.mixup": 1.0,
        "train.mix_until": 0.7,
    }
    train_and_evaluate(simple_config(tiny_data, **changes), tmp_path)
    assert sizes == [8] * 2 + [12] * 3 + [16] * 5
    assert mixed == [True] * 7 + [False] * 3


def test_listed_images_are_left_out(tiny_data, tmp_path, caplog):
    faces = read.load(tiny_data, "train")
    listed = tmp_path / "suspects.csv"
    rows = [f"{EMOTIONS[faces.labels[i]]},{faces.ids[i]}" for i in (3, 33, 69)]
    listed.write_text("\n".join(["label,id", *rows]) + "\n")
    config = simple_config(tiny_data, **{"data.drop_ids": str(listed), "train.steps": 2, "log_every": 1})
    with caplog.at_level(logging.INFO):
        train_and_evaluate(config, tmp_path / "run")
    assert "training faces after cleaning: 67, left out: {'listed': 3, 'blank': 0, 'twin': 0}" in caplog.text
    _, facts = load_weights(tmp_path / "run")
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    assert facts["training"] == {
        "images": 67,
        "left_out": {"listed": 3, "blank": 0, "twin": 0},
        "drop_ids_hash": digest,
    }
    # An epoch is what is left.
    assert [r["epoch"] for r in records(tmp_path / "run") if r["kind"] == "train"][0] == round(16 / 67, 4)
    # The same list elsewhere is the same run; another list under the old name is another.
    listed.rename(tmp_path / "moved.csv")
    config.data.drop_ids = str(tmp_path / "moved.csv")
    train_and_evaluate(config, tmp_path / "run")
    (tmp_path / "moved.csv").write_text(faces.ids[5])
    with pytest.raises(ValueError, match=f"drop_ids_hash: '{digest}' there, .* here"):
        train_and_evaluate(config, tmp_path / "run")


def test_a_listed_twin_leaves_the_other_copy(tiny_data, tmp_path, monkeypatch):
    faces = read.load(tiny_data, "train")
    faces.images[1] = faces.images[0]
    monkeypatch.setattr(read, "load", lambda *args, **kwargs: faces)
    config = simple_config(tiny_data, **{"data.merge_twins": True, "data.drop_ids": str(tmp_path / "ids")})
    (tmp_path / "ids").write_text(faces.ids[0])
    train, facts = build.load_training(config)
    assert train.ids[0] == faces.ids[1] and facts["left_out"] == {"listed": 1, "blank": 0, "twin": 0}
    (tmp_path / "ids").write_text(f"{faces.ids[5]}\nTraining/none\n")
    with pytest.raises(ValueError, match="ids, row 2: no training image has the id 'Training/none'"):
        train_and_evaluate(config, tmp_path / "run")


@pytest.fixture
def two_angry(tiny_data, tmp_path):
    """A file that leaves 2 of the 10 angry faces, of 70."""
    faces = read.load(tiny_data, "train")
    (tmp_path / "ids").write_text("\n".join(np.array(faces.ids)[faces.labels == 0][:8]))
    return str(tmp_path / "ids")


def test_logits_are_adjusted_to_the_shares_of_what_is_left(tiny_data, two_angry, tmp_path):
    changes = {"model.name": "constant", "train.steps": 1, "loss.label_smoothing": 0.0}
    changes |= {"data.drop_ids": two_angry, "loss.logit_adjustment": 1.0}
    config = simple_config(tiny_data, **changes)
    train_and_evaluate(config, tmp_path / "run")
    (train,) = [r for r in records(tmp_path / "run") if r["kind"] == "train"]
    logits = np.array(BIASES) + np.log(np.array([2, 10, 10, 10, 10, 10, 10]) / 62)
    labels = first_labels(config, build.load_training(config)[0])
    expected = np.log(np.exp(logits).sum()) - logits[labels].mean()
    assert train["loss"] == pytest.approx(expected, rel=1e-5)
    # What evaluates sees the logits as they are.
    (record,) = [r for r in records(tmp_path / "run") if r["kind"] == "eval"]
    total = math.log(sum(math.exp(b) for b in BIASES))
    assert record["loss"] == pytest.approx(total - sum(BIASES) / 7, rel=1e-6)


def test_a_balanced_run_resumes_bitwise(tiny_data, two_angry, tmp_path, monkeypatch):
    changes = {"data.drop_ids": two_angry, "data.balanced_sampling": 1.0}
    config = simple_config(tiny_data, **changes)
    train_and_evaluate(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(PreemptedError):
        patch.setattr("fer_jax.training.train._preempted", lambda stop, step: step == 6)
        train_and_evaluate(config, tmp_path / "cut")
    train_and_evaluate(config, tmp_path / "cut")
    assert_same_run(tmp_path / "whole", tmp_path / "cut", 10)


def test_durations_in_steps(tiny_data, tmp_path):
    changes = {
        "optim.warmup_steps": 2,
        "optim.schedule": "step",
        "optim.boundary_steps": (4, 6),
        "optim.step_factor": 0.5,
        "train.eval_steps": 3,
        "train.steps": 8,
        "log_every": 1,
    }
    train_and_evaluate(simple_config(tiny_data, **changes), tmp_path)
    rates = [r["learning_rate"] for r in records(tmp_path) if r["kind"] == "train"]
    expected = [0, 0.5, 1, 1, 0.5, 0.5, 0.25, 0.25]
    assert rates == pytest.approx([0.05 * factor for factor in expected], rel=1e-5)
    assert [r["step"] for r in records(tmp_path) if r["kind"] == "eval"] == [3, 6, 8]


def test_a_directory_in_use_is_refused(tiny_data, tmp_path):
    with workdir_module.exclusive(tmp_path), pytest.raises(ValueError, match="another process is training"):
        train_and_evaluate(simple_config(tiny_data), tmp_path)
    train_and_evaluate(simple_config(tiny_data, **{"train.steps": 1}), tmp_path)


def test_sizes_that_the_model_does_not_take_are_refused(tiny_data, tmp_path):
    elu = {"model.name": "cnn_elu", "train.sizes": ((0.5, 24),), "model.input_size": 48}
    with pytest.raises(ValueError, match="config.train.sizes has 24, but cnn_elu .*input_size=48"):
        train_and_evaluate(simple_config(tiny_data, **elu), tmp_path)
    small = {"model.name": "cnn_relu", "model.input_size": 4}
    with pytest.raises(ValueError, match="4x4 are too small for this model: at least 8x8"):
        train_and_evaluate(simple_config(tiny_data, **small), tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run(tiny_data, tmp_path):
    # After the first epoch, 4 steps, the rate grows beyond all bounds.
    changes = {
        "optim.schedule": "step",
        "optim.boundary_epochs": (1.0,),
        "optim.step_factor": 1e38,
    }
    config = simple_config(tiny_data, **changes)
    with pytest.raises(NonFiniteLossError, match=r"^step [56]: loss .*norm .*norm (inf|nan)") as error:
        train_and_evaluate(config, tmp_path)
    assert "config.optim.clip_norm" in str(error.value)
    # The last good checkpoint stays, finite, and nothing claims that the run is finished.
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]
    state = raw_state(tmp_path, 4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert not (tmp_path / "summary.json").exists()
    # It stops there again.
    with pytest.raises(NonFiniteLossError):
        train_and_evaluate(config, tmp_path)


def test_harmful_values_are_refused(tiny_data, tmp_path):
    harmful = {
        "checkpoint.keep": (0, "config.checkpoint.keep is 0; expected more than 0"),
        "model.std": (0.0, "config.model.std is 0.0; expected more than 0"),
        "train.ema_decay": (1.0, "config.train.ema_decay is 1.0; expected 0 to below 1"),
        "loss.label_smoothing": (-0.1, "config.loss.label_smoothing is -0.1; expected 0 to below 1"),
        "train.sizes": (((0.5, 8), (0.2, 12)), "(share of the steps, size), ...) with growing shares"),
        "selection.patience": (-1, "config.selection.patience is -1; expected 0 or more"),
        "optim.learning_rate": (-0.1, "config.optim.learning_rate is -0.1; expected 0 or more"),
        "optim.plateau_factor": (1.5, "config.optim.plateau_factor is 1.5; expected more than 0 and at most"),
        "optim.accumulate": (11, "config.optim.accumulate is 11, but the run has 10 steps: no update"),
        "loss.logit_adjustment": (-1.0, "config.loss.logit_adjustment is -1.0; expected 0 or more"),
        "data.balanced_sampling": (1.5, "config.data.balanced_sampling is 1.5; expected 0 to 1"),
        "model.kwargs": ({"dropout": 1.5}, "config.model.kwargs.dropout is 1.5; expected 0 to below 1"),
        "model.dtype": ("float16", "config.model.dtype is 'float16'; there are: float32, bfloat16"),
    }
    for field, (value, message) in harmful.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            train_and_evaluate(simple_config(tiny_data, **{field: value}), tmp_path / field)


def test_two_corrections_of_the_class_shares_are_refused(tiny_data, tmp_path):
    both = {"loss.logit_adjustment": 1.0, "data.balanced_sampling": 0.5}
    message = "config.loss.logit_adjustment and config.data.balanced_sampling are set: .* choose one"
    with pytest.raises(ValueError, match=message):
        train_and_evaluate(simple_config(tiny_data, **both), tmp_path)


def test_colour_needs_a_model_that_takes_it(tmp_path):
    for split in ("train", "validation"):
        for name in EMOTIONS:
            path = tmp_path / "images" / split / name / "0.png"
            path.parent.mkdir(parents=True)
            color = (len(name), len(split), 9)
            Image.new("RGB", (24, 24), color).save(path)
    dataset_build.build(tmp_path / "images", tmp_path / "data", progress=False)
    config = simple_config(tmp_path / "data")
    with pytest.raises(ValueError, match="have 3 channels and config.model.channels is 1: set --config"):
        train_and_evaluate(config, tmp_path / "run")


def test_unknown_choices_list_the_known(tiny_data, tmp_path):
    wrong = {
        "selection.metric": ("f1", "accuracy, balanced_accuracy, macro_f1"),
        "selection.split": ("public", "train, validation, test"),
        "model.name": ("resnet", "cnn_elu, cnn_relu"),
        "optim.name": ("lamb", "sgd, adam, adamw"),
        "optim.schedule": ("linear", "cosine, constant, step, plateau"),
        "parallel": ("all", "auto, jit, pmap"),
        "augment.fill": ("wrap", "reflect, constant"),
        "loss.normalization": ("sum", "examples, weights"),
    }
    for field, (value, known) in wrong.items():
        with pytest.raises(ValueError) as error:
            train_and_evaluate(simple_config(tiny_data, **{field: value}), tmp_path / field)
        assert repr(value) in str(error.value) or value in str(error.value), field
        assert known in str(error.value), field


# -------------------- interrupted --------------------


def test_a_run_is_finished_without_its_best_checkpoint(tiny_data, tmp_path):
    # All scores are equal: the first is the best, at step 4 of 9.
    config = simple_config(tiny_data, **{"model.name": "constant", "train.steps": 9})
    summary = train_and_evaluate(config, tmp_path)
    best = tmp_path / "best.safetensors"
    weights = best.read_bytes()
    # The file beside it serves where the checkpoint is gone ...
    (tmp_path / "summary.json").unlink()
    shutil.move(tmp_path / "checkpoints" / "4", tmp_path / "4")
    assert without_times(train_and_evaluate(config, tmp_path)) == without_times(summary)
    # ... and the checkpoint where the file is gone or of another step.
    shutil.move(tmp_path / "4", tmp_path / "checkpoints" / "4")
    for damage in (best.unlink, lambda: shutil.copy(tmp_path / "last.safetensors", best)):
        (tmp_path / "summary.json").unlink()
        damage()
        assert without_times(train_and_evaluate(config, tmp_path)) == without_times(summary)
        assert best.read_bytes() == weights


def test_a_report_is_of_the_weights_that_are_kept(tiny_data, tmp_path):
    train_and_evaluate(
        simple_config(tiny_data, **{"train.steps": 3, "checkpoint.dtype": "float16"}), tmp_path
    )
    variables, _ = load_weights(tmp_path)
    kernel = variables["params"]["Dense_0"]["kernel"]
    assert np.array_equal(kernel, kernel.astype(np.float16)) and np.any(kernel)
    faces = read.load(tiny_data, "validation")
    x = (faces.images.mean(axis=(1, 2)) / 255 - 0.5077) / 0.2550
    probs = nn.softmax(x @ kernel + variables["params"]["Dense_0"]["bias"])
    rows = np.loadtxt(
        tmp_path / "report" / "predictions.csv", delimiter=",", skiprows=1, usecols=range(3, 10)
    )
    np.testing.assert_allclose(rows, probs, rtol=1e-5)


def test_accumulated_gradients_and_a_plateau_are_resumed(tiny_data, tmp_path, monkeypatch):
    changes = {
        "optim.accumulate": 2,
        "optim.schedule": "plateau",
        "optim.plateau_patience": 1,
        "selection.metric": "macro_f1",
        "train.steps": 14,
        "train.ema_decay": 0.9,
    }
    config = simple_config(tiny_data, **changes)
    train_and_evaluate(config, tmp_path / "whole")
    add = Window.add

    def add_and_stop(self, step, metrics):
        add(self, step, metrics)
        if step in (5, 9):  # between two updates, and at an evaluation
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Window, "add", add_and_stop)
    for _ in range(2):
        with pytest.raises(PreemptedError):
            train_and_evaluate(config, tmp_path / "resumed")
    train_and_evaluate(config, tmp_path / "resumed")
    assert_same_run(tmp_path / "resumed", tmp_path / "whole", step=14)


def without_times(summary):
    return {key: value for key, value in summary.items() if key not in TIMES}


def test_a_damaged_newest_checkpoint_is_passed_over(whole, tiny_data, tmp_path, caplog):
    workdir, _ = whole
    copy = shutil.copytree(workdir, tmp_path / "run")
    (copy / "summary.json").unlink()
    for path in (copy / "checkpoints" / "10" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"garbage")
    train_and_evaluate(tiny_config(tiny_data, **SMALL), copy)
    assert "damaged checkpoint" in caplog.text and str(copy / "checkpoints" / "10") in caplog.text
    assert_same_run(copy, workdir, step=10)


def interrupted(spec, **ending):
    return run_python("tests/interrupted_run.py", json.dumps(spec | ending))


def assert_resumed(endings, codes, whole, data, workdir):
    """A run that is ended and begun again and again without TensorFlow ends as the whole one did."""
    spec = {"data": str(data), "workdir": str(workdir), "changes": SMALL}
    processes = [interrupted(spec, **ending) for ending in endings]
    assert [process.returncode for process in processes] == codes, processes[-1].stderr
    assert_same_run(workdir, whole[0], step=10)
    # The summary does not tell of the interruptions.
    summary = json.loads(processes[-1].stdout)
    assert without_times(summary) == without_times(whole[1])
    assert summary["seconds"] > 0
    # Nothing but the event files is missing.
    for process in processes:
        assert process.stderr.count("no TensorBoard files: No module named 'tensorflow'") == 1
    files = {path.name for path in workdir.iterdir()}
    assert files == {path.name for path in whole[0].iterdir()} - {"tensorboard"}


def test_killed_runs_end_as_if_nothing_had_happened(whole, tiny_data, tmp_path):
    endings = [
        # Before the first checkpoint, while it is committed, between two, while one is begun.
        {"signal": ["SIGKILL", 2, 0]},
        {"kill_in_save": ["os.rename", 3]},
        {"signal": ["SIGKILL", 5, 0]},
        {"kill_in_save": ["open", 9]},
        {},
    ]
    assert_resumed(endings, [-signal.SIGKILL] * 4 + [0], whole, tiny_data, tmp_path / "run")


def test_sigterm_saves_and_ends_with_its_own_code(whole, tiny_data, tmp_path):
    # In the middle of a window, at the last evaluation.
    endings = [{"signal": ["SIGTERM", 5, 0]}, {"signal": ["SIGTERM", 10, 0]}, {}]
    assert_resumed(endings, [EXIT_PREEMPTED] * 2 + [0], whole, tiny_data, tmp_path / "run")
