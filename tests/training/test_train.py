"""Tests the training loop on tiny files: the files of a run, and results computed by hand."""

import functools
import json
import logging
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_equal, raw_state, records
from small_runs import BIASES, PLATEAU, STAGES, WHOLE, config_of, simple_config, staged_config
from tensorboard.backend.event_processing import event_accumulator
from tensorboard.util import tensor_util

from fer_jax import models
from fer_jax.data import augment, pipeline
from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import leakage_policy
from fer_jax.pretrained.weights_file import load_weights
from fer_jax.training import sharding
from fer_jax.training.metric_writers import read_records
from fer_jax.training.monitoring import NonFiniteLossError
from fer_jax.training.train import Run, train_and_evaluate


def records_of(kind, workdir):
    return [record for record in records(workdir) if record["kind"] == kind]


training_records, evaluations = (functools.partial(records_of, kind) for kind in ("train", "eval"))


def probabilities(workdir):
    """Returns the predictions [N, 7] in a run's report."""
    path = workdir / "report" / "predictions.csv"
    return np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(3, 10))


# -------------------- a run --------------------


def test_a_run_leaves_what_it_promises(whole, tiny_data):
    workdir, summary = whole
    names = "augmented_faces.png best.safetensors checkpoints config.json last.safetensors metrics.jsonl "
    names += "report starts.jsonl summary.json tensorboard training_curves.png"
    assert {path.name for path in workdir.iterdir()} == set(names.split())
    assert json.loads((workdir / "summary.json").read_text()) == summary
    found = evaluations(workdir)
    assert [r["step"] for r in found] == [4, 9, 10]
    best = max(found, key=lambda r: r["accuracy"])  # the first in a tie
    selected = {"split": "validation", "metric": "accuracy", "value": best["accuracy"], "step": best["step"]}
    assert summary["best"] == selected | {"epoch": round(best["step"] * 16 / 70, 2)}
    assert summary["accuracy"] == best["accuracy"] and summary["macro_f1"] == best["macro_f1"]
    assert (summary["steps"], summary["stopped_early"]) == (10, False)
    assert 0 <= summary["input_wait"] <= 1 and summary["seconds"] > 0
    report = json.loads((workdir / "report" / "report.json").read_text())
    assert report["accuracy"] == best["accuracy"]
    assert report["split"] == "validation" and report["num_examples"] == 28
    assert report["data_hash"] == read.read_manifest(tiny_data)["content_hash"]
    assert report["emotions"] == list(EMOTIONS)
    assert (report["labels"], report["annotations"]) == ("given", [])
    # The newest two and the best.
    steps = {int(path.name) for path in (workdir / "checkpoints").iterdir()}
    assert steps == {9, 10, best["step"]}
    assert not list(workdir.rglob("*.partial"))


def test_training_metrics_are_reported_at_the_requested_steps(whole):
    training = [r for r in read_records(whole[0]) if r["kind"] == "train"]
    assert [r["step"] for r in training] == [2, 4, 6, 8, 9, 10]
    # Warm-up over half an epoch (2 steps), then a cosine over the other 8 steps.
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
    found = [(e.step, tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors("eval/accuracy")]
    assert found == [(r["step"], pytest.approx(r["accuracy"])) for r in evaluations(whole[0])]


def test_the_best_weights_give_the_reported_predictions(whole, tiny_data):
    workdir, summary = whole
    variables, metadata = load_weights(workdir)
    assert metadata["selection"] == summary["best"] and metadata["ema"] is True
    assert metadata["parameters"] == sum(p.size for p in jax.tree.leaves(variables["params"]))
    model = models.create(metadata["model"]["name"], **metadata["model"]["kwargs"])
    faces = read.load(tiny_data, "validation")
    # Resizing 48 to 16 pixels averages 3 x 3 pixels.
    x = faces.images.reshape(-1, 16, 3, 16, 3, 1).mean(axis=(2, 4)) / 255
    x = (x - metadata["preprocess"]["mean"]) / metadata["preprocess"]["std"]
    logits = jax.jit(model.apply)(variables, jnp.float32(x))
    assert np.mean(np.asarray(logits).argmax(axis=1) == faces.labels) == summary["accuracy"]
    np.testing.assert_allclose(probabilities(workdir), nn.softmax(logits), atol=1e-4)


def test_a_finished_run_says_so_and_changes_nothing(whole, tiny_data, caplog):
    workdir, summary = whole
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*")}
    with caplog.at_level(logging.INFO):
        again = train_and_evaluate(config_of(tiny_data, **WHOLE), workdir)
    assert again == summary
    assert f"this run is finished: {workdir / 'report' / 'report.md'}" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*")} == before


@pytest.fixture
def short(trained, tiny_data):
    """Returns a run of three steps with float16 kernels, which must not be modified."""
    return trained(simple_config(tiny_data, **{"train.steps": 3, "checkpoint.dtype": "float16"}))[0]


def test_a_report_is_of_the_weights_that_are_stored(short, tiny_data):
    variables, _ = load_weights(short)
    kernel = variables["params"]["Dense_0"]["kernel"]
    assert np.array_equal(kernel, kernel.astype(np.float16)) and np.any(kernel)
    faces = read.load(tiny_data, "validation")
    x = (faces.images.mean(axis=(1, 2)) / 255 - 0.5077) / 0.2550
    probs = nn.softmax(x @ kernel + variables["params"]["Dense_0"]["bias"])
    np.testing.assert_allclose(probabilities(short), probs, rtol=1e-5)


@pytest.mark.parametrize("by_name", [False, True])
def test_a_new_run_starts_from_old_weights(by_name, short, trained, tiny_data, bundle):
    """Weights are given by run directory, and by the name of a bundled network."""
    bundle("old_one", short / "best.safetensors")
    # A learning rate of 0 does not change them.
    source = "old_one" if by_name else str(short)
    changes = {"init_from": source, "optim.learning_rate": 0.0, "train.steps": 1}
    new, _ = trained(simple_config(tiny_data, **changes))
    (before, old), (after, metadata) = load_weights(short), load_weights(new)
    assert_trees_equal(after, before)
    assert np.any(before["params"]["Dense_0"]["kernel"])  # the model starts at 0
    assert metadata["config"]["init_from"] == source
    # Splits used for the initial weights count as used for these.
    (line,) = metadata["ancestors"]
    assert (line["data"], line["selection"]) == (old["data"], old["selection"])
    elsewhere = metadata | {"trained_data": {"splits": {"train": {"hash": "x"}, "validation": {"hash": "y"}}}}
    judged = leakage_policy.assess(elsewhere | {"split": "train"}, np.zeros(70, np.int8))
    assert judged["trained_on_this_split"] is True and judged["headline"] is None
    assert [r["step"] for r in records(new)] == [1, 1]


def test_a_compilation_is_announced(whole, tiny_data, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        train_and_evaluate(simple_config(tiny_data, **{"train.steps": 2}), tmp_path)
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("compiling the training step at 16 x 16 pixels") == 1
    (took,) = (line for line in lines if line.startswith("compiling") and " took " in line)
    assert took.endswith(" s")


# -------------------- in stages --------------------


def rates_of(workdir):
    return [r["learning_rate"] for r in records(workdir) if r["kind"] == "train"]


def test_each_stage_has_its_rate_and_trains_its_layers(trained, tiny_data):
    workdir, _ = trained(staged_config(tiny_data, **{"checkpoint.every_steps": 1, "checkpoint.keep": 100}))
    assert rates_of(workdir) == pytest.approx([0.1] * 3 + [0.01] * 5)
    trunks = [raw_state(workdir, step)["params"]["trunk"]["kernel"] for step in range(1, 9)]
    means = [raw_state(workdir, step)["batch_stats"]["trunk_norm"]["mean"] for step in range(1, 9)]
    for values in (trunks, means):
        same = [np.array_equal(a, b) for a, b in zip(values, values[1:], strict=False)]
        assert same == [True, True, False, False, False, False, False]


def test_the_schedule_restarts(trained, tiny_data):
    workdir, _ = trained(staged_config(tiny_data, **{"optim.schedule": "cosine"}))
    cosine = [0.1 * (1 + np.cos(np.pi * i / 3)) / 2 for i in range(3)]
    cosine += [0.01 * (1 + np.cos(np.pi * i / 5)) / 2 for i in range(5)]
    assert rates_of(workdir) == pytest.approx(cosine, rel=1e-5)


def test_the_plateau_restarts(trained, tiny_data):
    changes = PLATEAU | {"optim.plateau_factor": 0.5, "selection.metric": "accuracy"}
    # Learning rates this small improve nothing, so the first evaluation stays the best.
    stages = tuple(stage | {"learning_rate": 1e-12} for stage in STAGES)
    workdir, _ = trained(staged_config(tiny_data, stages, **changes))
    expected = [1e-12, 1e-12, 5e-13, 1e-12, 5e-13, 2.5e-13, 1.25e-13, 6.25e-14]
    assert rates_of(workdir) == pytest.approx(expected)


# -------------------- hand-computed --------------------


def first_labels(config, faces):
    """Returns the labels of the first batch, read from the stream."""
    stream = pipeline.TrainStream(faces, config.train.batch_size, augment.Ranges(), config.seed)
    labels = next(stream)["target"].argmax(axis=1)
    stream.close()
    return labels.tolist()


def test_a_constant_model_gives_the_metrics_computed_by_hand(trained, tiny_data):
    config = simple_config(tiny_data, **{"model.name": "constant", "train.steps": 1})
    workdir, summary = trained(config)
    (record,) = evaluations(workdir)
    # 4 faces of each of 7 classes, all predicted as happy.
    total = math.log(sum(math.exp(b) for b in BIASES))
    assert record["loss"] == pytest.approx(total - sum(BIASES) / 7, rel=1e-6)
    assert record["accuracy"] == pytest.approx(1 / 7)
    assert record["balanced_accuracy"] == pytest.approx(1 / 7)
    assert record["macro_f1"] == pytest.approx(2 * (1 / 7) / (1 + 1 / 7) / 7)
    report = json.loads((workdir / "report" / "report.json").read_text())
    confusion = np.array(report["confusion_matrix"])
    assert confusion[:, EMOTIONS.index("happy")].tolist() == [4] * 7 and confusion.sum() == 28
    assert summary["accuracy"] == report["accuracy"] == record["accuracy"]
    # The training loss likewise, with smoothing 0.1, after one step on any faces.
    (train,) = training_records(workdir)
    labels = first_labels(config, read.load(tiny_data, "train"))
    smoothed = 0.9 * np.take(BIASES, labels).mean() + 0.1 * np.mean(BIASES)
    assert train["loss"] == pytest.approx(total - smoothed, rel=1e-5)
    assert train["accuracy"] == np.mean(np.array(labels) == 3)
    assert train["grad_norm"] == 0 and train["param_norm"] == 1


def test_early_stopping(trained, tiny_data):
    changes = {"model.name": "constant", "selection.patience": 2, "train.steps": 100}
    _, summary = trained(simple_config(tiny_data, **changes))
    # The first evaluation is the best, followed by two without improvement, at epochs 2 and 3.
    assert summary["stopped_early"] and summary["steps"] == round(3 * 70 / 16)
    assert summary["best"]["step"] == 4


EVALUATED = {"train.eval_steps": 3}
RATES = {
    # Evaluation 1 is the best; after 3 and 5, the learning rate is halved, but not below 0.3.
    "plateau": (
        {**PLATEAU, "model.name": "constant", "optim.plateau_patience": 2, "optim.plateau_min_scale": 0.3},
        [1, 1, 1, 0.5, 0.5, 0.3, 0.3, 0.3],
    ),
    "steps": (
        {"optim.schedule": "step", "optim.boundary_steps": (4, 6), "optim.warmup_steps": 2, **EVALUATED},
        [0, 0.5, 1, 1, 0.5, 0.5, 0.25, 0.25],
    ),
    # The schedule counts updates, not steps.
    "accumulated": (
        {"optim.accumulate": 2},
        [0.5 * (1 + math.cos(math.pi * update / 4)) for update in (0, 0, 1, 1, 2, 2, 3, 3)],
    ),
}


@pytest.mark.parametrize("name", RATES)
def test_the_learning_rate_of_each_step(name, trained, tiny_data):
    changes, factors = RATES[name]
    changes |= {"train.steps": 8, "log_every": 1, "optim.step_factor": 0.5, "optim.plateau_factor": 0.5}
    workdir, _ = trained(simple_config(tiny_data, **changes))
    rates = [r["learning_rate"] for r in training_records(workdir)]
    assert rates == pytest.approx([0.05 * factor for factor in factors], rel=1e-5)
    norms = [r["param_norm"] for r in training_records(workdir)]
    if name == "plateau":
        assert float(raw_state(workdir, 8)["lr_scale"]) == pytest.approx(0.3)
    elif name == "steps":
        assert [r["step"] for r in evaluations(workdir)] == [3, 6, 8]
    else:  # every second step updates the weights, which start at 0
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
    changes = {"train.sizes": ((0.2, 8), (0.5, 12)), "augment.mixup": 1.0, "train.mix_until": 0.7}
    train_and_evaluate(simple_config(tiny_data, **changes), tmp_path)
    assert sizes == [8] * 2 + [12] * 3 + [16] * 5
    assert mixed == [True] * 7 + [False] * 3


def test_logits_are_adjusted_to_the_shares_of_what_is_left(trained, tiny_data, two_angry):
    changes = {"model.name": "constant", "train.steps": 1, "loss.label_smoothing": 0.0}
    changes |= {"data.drop_ids": two_angry, "loss.logit_adjustment": 1.0}
    config = simple_config(tiny_data, **changes)
    workdir, _ = trained(config)
    (train,) = training_records(workdir)
    logits = np.array(BIASES) + np.log(np.array([2, 10, 10, 10, 10, 10, 10]) / 62)
    dropped = set(open(two_angry).read().split())
    faces = read.load(tiny_data, "train")
    labels = first_labels(config, faces.take(np.flatnonzero([i not in dropped for i in faces.ids])))
    expected = np.log(np.exp(logits).sum()) - logits[labels].mean()
    assert train["loss"] == pytest.approx(expected, rel=1e-5)
    # Evaluation uses the logits as they are.
    (record,) = evaluations(workdir)
    total = math.log(sum(math.exp(b) for b in BIASES))
    assert record["loss"] == pytest.approx(total - sum(BIASES) / 7, rel=1e-6)


def test_a_loss_that_is_not_finite_stops_the_run(tiny_data, tmp_path):
    # After the first epoch (4 steps), the learning rate is huge.
    changes = {"optim.schedule": "step", "optim.boundary_epochs": (1.0,), "optim.step_factor": 1e38}
    config = simple_config(tiny_data, **changes)
    with pytest.raises(NonFiniteLossError, match=r"^step [56]: loss .*norm .*norm (inf|nan)") as error:
        train_and_evaluate(config, tmp_path)
    assert "config.optim.clip_norm" in str(error.value)
    # The last finite checkpoint is kept, and the run is not marked as finished.
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["4"]
    state = raw_state(tmp_path, 4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))
    assert not (tmp_path / "summary.json").exists()
    # A restart stops there again.
    with pytest.raises(NonFiniteLossError):
        train_and_evaluate(config, tmp_path)
