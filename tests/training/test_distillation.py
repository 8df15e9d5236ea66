"""Tests the teacher loss by hand, and that a student learns its teacher's predictions."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import HOW, Linear, assert_same_run, metadata_of, tiny_config
from scipy.special import log_softmax, softmax
from small_runs import simple_config

from fer_jax import models
from fer_jax.data import augment, transforms
from fer_jax.data.dataset import read
from fer_jax.data.faces import Faces, one_hot
from fer_jax.evaluation import predictions_file
from fer_jax.pretrained import weights_file
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.weights_file import DamagedCheckpointError
from fer_jax.training import distillation, losses, optim, sharding, train_step
from fer_jax.training.monitoring import PreemptedError, StopSignal
from fer_jax.training.state import create_state, random_variables
from fer_jax.training.train import train_and_evaluate
from fer_jax.training.validate import validate

KWARGS = {"widths": [8], "depths": [1], "hidden": 8, "dropout": 0.0}


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Returns two networks with sharpened predictions; the second has a smaller input size."""
    folder, found = tmp_path_factory.mktemp("teachers"), []
    for number, side in enumerate((12, 8)):
        model = models.create("cnn_relu", **KWARGS)
        variables = random_variables(model, (side, side, 1), seed=number)
        variables["params"]["Dense_1"]["kernel"] = 4 * variables["params"]["Dense_1"]["kernel"]
        path = folder / f"{number}.safetensors"
        weights_file.export_weights(path, variables, metadata_of(KWARGS, side))
        found.append(LoadedModel(path))
    return found


def batch(seed=0, size=16):
    rng = np.random.default_rng(seed)
    drawn = augment.draw(augment.Ranges(flip=0.5, rotation=10, erasing=0.5, mixup=0.4), size, rng)
    images = rng.integers(0, 256, (size, 12, 12, 1), dtype=np.uint8)
    targets = np.eye(7, dtype=np.float32)[rng.integers(0, 7, size)]
    return {"image": images, "target": targets, **drawn}


def teaching(taught):
    """Returns the arguments of the training step for a distillation, or for none."""
    return {"teacher_loss": taught.loss, "teacher_weight": taught.weight} if taught else {}


def test_the_loss_is_cross_entropy_against_the_teachers_view_of_the_batch(teachers):
    given, temperature = batch(), 2.0
    logits = np.random.default_rng(1).normal(size=(16, 7)).astype(np.float32)
    taught = distillation.Distillation(teachers, weight=0.5, temperature=temperature)
    total, count = jax.jit(taught.loss)(logits, taught.variables, given)

    answers = []
    for teacher, side in zip(teachers, (12, 8), strict=True):
        view = jax.jit(lambda given, side=side: transforms.apply(given, side, "reflect", 0.5)[0])(given)
        theirs = np.asarray(jax.jit(teacher.model.apply)(teacher.variables, (view - 0.5) / 0.25))
        answers.append(softmax(theirs / temperature, axis=1))
    terms = -(np.mean(answers, axis=0) * log_softmax(logits / temperature, axis=1)).sum(axis=1)
    assert count == 16
    np.testing.assert_allclose(total, temperature**2 * terms.sum(), rtol=1e-4)


def test_what_teachers_answer_before_training_is_part_of_the_targets(teachers, tmp_path, monkeypatch):
    """Each teacher predicts a face and its mirror image, once, and again for other faces."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (5, 12, 12, 1), dtype=np.uint8), np.arange(5)
    faces = Faces(images, labels, one_hot(labels), list("abcde"))
    blended = distillation.blend(faces, teachers, 0.25, tmp_path, "hash", StopSignal())

    answers = []
    for teacher, side in zip(teachers, (12, 8), strict=True):
        for view in (images, images[:, :, ::-1]):
            drawn = transforms.resample(view, augment.identity_affine(5), side, "reflect", 0.5, "bilinear")
            x = (np.asarray(drawn) - 0.5) / 0.25
            answers.append(softmax(np.asarray(jax.jit(teacher.model.apply)(teacher.variables, x)), axis=1))
    expected = 0.75 * np.eye(7)[:5] + 0.25 * np.mean(answers, axis=0)
    np.testing.assert_allclose(blended.targets, expected, atol=1e-5)
    assert blended.targets.dtype == np.float32 and blended.images is images

    with monkeypatch.context() as patch:
        patch.setattr(LoadedModel, "predict", None)
        again = distillation.blend(faces, teachers, 0.25, tmp_path, "hash", StopSignal())
    np.testing.assert_array_equal(again.targets, blended.targets)
    for others, dataset in ((faces.take(np.arange(4)), "hash"), (faces, "another")):
        changed = distillation.blend(others, teachers, 0.25, tmp_path, dataset, StopSignal())
        np.testing.assert_allclose(changed.targets, expected[: len(others)], atol=1e-5)
    for damaged in (b"PK cut", b""):
        (tmp_path / distillation.ANSWERS_FILE).write_bytes(damaged)
        again = distillation.blend(faces, teachers, 0.25, tmp_path, "hash", StopSignal())
        np.testing.assert_allclose(again.targets, expected, atol=1e-5)


def test_a_run_on_answers_resumes_bitwise_and_asks_once(
    trained, resumed, tiny_run, tiny_data, tmp_path, monkeypatch
):
    """It is stopped during the teacher's predictions, which stores nothing, and during training."""
    config = simple_config(tiny_data, **{"distill.teachers": (str(tiny_run),), "distill.views": "plain"})
    whole, _ = trained(config)
    with monkeypatch.context() as patch, pytest.raises(PreemptedError):
        patch.setattr(StopSignal, "received", True)
        train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run" / distillation.ANSWERS_FILE).exists()
    asked, predict = [], LoadedModel.predict
    monkeypatch.setattr(LoadedModel, "predict", lambda *a, **k: asked.append(a) or predict(*a, **k))
    resumed(config, tmp_path / "run", (6,))
    assert len(asked) == 1
    assert_same_run(whole, tmp_path / "run", 10)
    page = (whole / "report" / "report.md").read_text()
    assert f"| distilled from | {tiny_run} (weight 0.9, stored predictions), and labels |" in page


def test_answers_that_cannot_be_written_end_every_process(teachers, tmp_path, monkeypatch):
    """The failing process is the first of two; it notifies the other one before it fails."""
    told = []
    monkeypatch.setattr(sharding, "all_processes", lambda value: told.append(value) or value)

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(distillation, "write_atomically", refuse)
    labels = np.arange(2)
    faces = Faces(np.zeros((2, 12, 12, 1), np.uint8), labels, one_hot(labels), ["a", "b"])
    with pytest.raises(OSError, match="No space left"):
        distillation.blend(faces, teachers[1:], 0.5, tmp_path, None, StopSignal())
    assert told[-1] is False


def test_a_student_of_the_teachers_shape_comes_to_answer_like_it(teachers):
    """With a weight of 1, the labels, which contradict the teacher, have no effect."""
    teacher = teachers[0]
    student = models.create("cnn_relu", **KWARGS)
    tx = optim.make_optimizer("adam", lambda step: 0.01)
    state = create_state(student, tx, input_shape=(12, 12, 1), seed=5, use_ema=False)
    how = {"size": 12, **HOW}
    taught = distillation.Distillation([teacher], weight=1.0, temperature=1.0)
    step = jax.jit(train_step.make_train_step(student, tx, losses.cross_entropy, **how, **teaching(taught)))
    given = batch(size=64)
    before = None
    for _ in range(150):
        state, metrics = step(state, given, taught.variables)
        before = before or float(metrics["loss"])
    answers = np.asarray(taught.teach(taught.variables, given))
    entropy = -(answers * np.log(answers)).sum(axis=1).mean()
    # Cross entropy is the teacher's entropy plus the remaining divergence.
    assert metrics["loss"] - entropy < 0.1 * (before - entropy)


def test_labels_and_teachers_share_the_loss_by_the_weight(teachers):
    student, tx = Linear(spread=1.0), optim.make_optimizer("sgd", lambda step: 0.0)
    state = create_state(student, tx, input_shape=(12, 12, 1), seed=5, use_ema=False)
    found = {}
    for weight in (None, 0.25, 1.0):
        taught = distillation.Distillation(teachers, weight, temperature=3.0) if weight else None
        step = train_step.make_train_step(
            student, tx, losses.cross_entropy, size=12, **HOW, **teaching(taught)
        )
        found[weight] = float(jax.jit(step)(state, batch(), taught and taught.variables)[1]["loss"])
    np.testing.assert_allclose(found[0.25], 0.75 * found[None] + 0.25 * found[1.0], rtol=1e-5)


def test_a_run_learns_from_its_teachers_and_says_so(tiny_run, tiny_data, tmp_path):
    """The run and its initial weights share their data; the metadata records both."""
    changes = {"distill.teachers": (str(tiny_run),), "train.steps": 4, "seed": 7}
    config = simple_config(tiny_data, **changes)
    train_and_evaluate(config, tmp_path / "run")
    _, metadata = weights_file.load_weights(tmp_path / "run")
    teacher = LoadedModel(tiny_run)
    assert [one["selection"] for one in metadata["ancestors"]] == [teacher.metadata["selection"]]
    identity = json.loads((tmp_path / "run" / "config.json").read_text())
    assert identity["teachers"] == [teacher.digest]
    page = (tmp_path / "run" / "report" / "report.md").read_text()
    assert f"| distilled from | {tiny_run} (weight 0.9, temperature 1), and labels |" in page

    # A moved teacher gives the same run; another teacher at the same path does not.
    moved = tmp_path / "moved.safetensors"
    shutil.copy(tiny_run / "best.safetensors", moved)
    config.distill.teachers = (str(moved),)
    assert train_and_evaluate(config, tmp_path / "run")["steps"] == 4
    shutil.copy(tmp_path / "run" / "best.safetensors", moved)
    names = rf"\(config.distill.teachers: \['{tiny_run}'\] there, \['{moved}'\] here, by their weights\)"
    with pytest.raises(ValueError, match=names):
        train_and_evaluate(config, tmp_path / "run")


def test_a_run_in_bfloat16_is_judged_and_served_in_float32(tiny_data, tmp_path):
    small = {"widths": (4,), "depths": (1,), "hidden": 8}
    changes = {"model.kwargs": small, "model.dtype": "bfloat16", "train.steps": 4}
    summary = train_and_evaluate(tiny_config(tiny_data, **changes), tmp_path / "run")
    trained = LoadedModel(tmp_path / "run")
    assert trained.model.dtype == jnp.float32
    faces = read.load(tiny_data, "validation")
    probs = trained.predict(faces.images, progress=False)
    assert np.mean(probs.argmax(1) == faces.labels) == summary["accuracy"]
    report = predictions_file.read(tmp_path / "run" / "report" / "predictions.csv")
    np.testing.assert_allclose(probs, report.probs, atol=1e-6)


def test_a_color_blind_teacher_is_refused(tiny_run, tiny_data, monkeypatch):
    manifest = read.read_manifest(tiny_data)
    monkeypatch.setattr(read, "read_manifest", lambda folder: manifest | {"channels": 3})
    config = tiny_config(tiny_data, **{"distill.teachers": (str(tiny_run),)})
    with pytest.raises(ValueError, match=r"config.distill.teachers: .* takes 1 channel \(gray\)"):
        validate(config)


def test_a_damaged_teacher_is_named(tiny_data, tmp_path):
    damaged = tmp_path / "cut.safetensors"
    damaged.write_bytes(b"cut")
    config = tiny_config(tiny_data, **{"distill.teachers": (str(damaged),)})
    with pytest.raises(DamagedCheckpointError, match=f"config.distill.teachers: {damaged} is not a complete"):
        validate(config)


def test_a_teacher_answers_once(tiny_run, tiny_data):
    again = str(tiny_run / "best.safetensors")
    config = tiny_config(tiny_data, **{"distill.teachers": (str(tiny_run), again)})
    with pytest.raises(ValueError, match="config.distill.teachers is .*: a teacher is given twice"):
        validate(config)


def test_teachers_of_other_classes_are_refused(tiny_run, tiny_ferplus):
    changes = {"data.labels": "ferplus_majority", "data.num_classes": 8, "distill.teachers": (str(tiny_run),)}
    with pytest.raises(ValueError, match=r"teachers: .* has the classes \['angry'.* but the student"):
        validate(tiny_config(tiny_ferplus, **changes))
