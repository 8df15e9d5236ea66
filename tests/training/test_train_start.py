"""Tests runs that start from another run's weights, also after stops."""

import shutil

import flax.linen as nn
import jax
import numpy as np
import pytest
from helpers import assert_same_run, tiny_config
from small_runs import simple_config

from fer_jax import models
from fer_jax.data import pipeline
from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import predictions_file
from fer_jax.models.backbone import Backbone
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.weights_file import export_weights, load_weights
from fer_jax.training.monitoring import PreemptedError, StopSignal
from fer_jax.training.train import Run, train_and_evaluate
from fer_jax.training.validate import validate

KERAS = {"padding": "same", "epsilon": 1e-3}
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
GRAY = {"mean": 0.48, "std": 0.22}
BEGAN_WITH = {"file": "some.h5", "licence": "Apache-2.0", "ecosystem": "keras"}


class Strided(Backbone):
    """A network with a strided convolution, BatchNorm, and a head; compiles quickly."""

    @nn.compact
    def __call__(self, x, train=False, features=False):
        layers = self.layers(train)
        x = layers["conv"](4, 3, 2, name="stem")(self.enter(x))
        x = layers["norm"](tail=nn.relu, name="stem_norm")(x)
        return self.leave(x.mean(axis=(1, 2)), train, features)


@pytest.fixture(autouse=True)
def _models(monkeypatch):
    monkeypatch.setitem(models.MODELS, "strided", Strided)


def write_parent(path, data, channels=3, normalized=IMAGENET, kwargs=KERAS, **facts):
    """Writes weights of a run at 16 px whose outputs depend on the layer conventions."""
    shape = (1, 16, 16, channels)
    variables = jax.tree.map(np.array, Strided().init(jax.random.key(3), np.zeros(shape, np.float32)))
    variables["params"]["head"]["kernel"] *= 3
    variables["params"]["stem"]["kernel"] *= 0.1  # the variance of its outputs is about epsilon
    variables["batch_stats"]["stem_norm"]["var"][:] = (1e-3, 2e-3, 3e-3, 4e-3)
    manifest = read.read_manifest(data)
    kept = {
        "model": {"name": "strided", "kwargs": kwargs},
        "preprocess": {"image_size": 16, "channels": channels, "fill": "reflect", "interpolation": "bicubic"}
        | normalized,
        "emotions": list(EMOTIONS),
        "data": read.describe(manifest),
        "data_hash": manifest["content_hash"],
        "selection": {"split": "validation", "metric": "accuracy", "value": 0.5, "step": 10},
        "pretrained": BEGAN_WITH,
    }
    export_weights(path, variables, kept | facts)
    return path


@pytest.fixture
def parent(tiny_data, tmp_path):
    return write_parent(tmp_path / "parent.safetensors", tiny_data)


def child_config(data, parent, channels=3, **changes):
    """Returns a config that starts from `parent` at its size, without stating its conventions."""
    config = tiny_config(data, **{"model.name": "strided", "train.steps": 6, "init_from": str(parent)})
    config.model.kwargs = {}
    start = {"model.channels": channels, "model.interpolation": "bicubic", "optim.warmup_epochs": 0.0}
    config.update_from_flattened_dict(start | changes)
    return config


def begin(config, workdir):
    """Returns a run's predictions before its first step, and its metadata."""
    workdir.mkdir()
    run = Run(validate(config), workdir, StopSignal())
    try:
        return run.predict(run.partitioner.fetch(run.state.variables())), run.metadata
    finally:
        run.close()


@pytest.mark.parametrize(("channels", "normalized"), [(3, IMAGENET), (1, GRAY)], ids=["imagenet", "gray"])
def test_a_run_begins_with_its_parents_answers(channels, normalized, tiny_data, tmp_path, monkeypatch):
    path = write_parent(tmp_path / "parent.safetensors", tiny_data, channels, normalized)
    erased = []  # the fill value of erased boxes and the outside, in the sheet of the first faces
    draw = pipeline.contact_sheet
    monkeypatch.setattr(pipeline, "contact_sheet", lambda *given: erased.append(given[-1]) or draw(*given))
    ours, facts = begin(child_config(tiny_data, path, channels), tmp_path / "run")
    faces = read.load(tiny_data, "validation").images
    theirs = LoadedModel(path).predict(faces, progress=False)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    # Each convention affects the predictions.
    for name, other in (("padding", "symmetric"), ("epsilon", 1e-5)):
        altered = write_parent(
            tmp_path / "other.safetensors", tiny_data, channels, normalized, KERAS | {name: other}
        )
        assert np.abs(LoadedModel(altered).predict(faces, progress=False) - theirs).max() > 1e-3, name
    assert facts["model"] == {"name": "strided", "kwargs": KERAS}
    assert {name: facts["preprocess"][name] for name in normalized} == normalized
    assert facts["pretrained"] == BEGAN_WITH
    assert erased == [pytest.approx(np.mean(normalized["mean"]))]
    (line,) = facts["ancestors"]
    assert line["selection"] == LoadedModel(path).metadata["selection"]


def test_size_and_interpolation_are_the_configurations(parent, tiny_data, tmp_path):
    changes = {"model.input_size": 24, "model.interpolation": "bilinear", "augment.fill": "constant"}
    _, facts = begin(child_config(tiny_data, parent, **changes), tmp_path / "run")
    own = {"image_size": 24, "interpolation": "bilinear", "fill": "constant", "channels": 3}
    assert facts["preprocess"] == own | IMAGENET


def test_attributes_that_the_configuration_sets_are_its_own(parent, tiny_data, tmp_path):
    config = child_config(tiny_data, parent)
    config.model.kwargs = {"padding": "symmetric", "dropout": 0.4}
    _, facts = begin(config, tmp_path / "run")
    assert facts["model"]["kwargs"] == {"padding": "symmetric", "epsilon": 1e-3, "dropout": 0.4}


def test_a_stopped_run_resumes_without_its_parent(parent, trained, tiny_data, tmp_path, monkeypatch):
    config = child_config(tiny_data, parent)
    whole, _ = trained(config)
    stop_at_2(config, tmp_path / "cut", monkeypatch)
    parent.unlink()
    train_and_evaluate(config, tmp_path / "cut")
    assert_same_run(whole, tmp_path / "cut", step=6)
    # The metadata describe the computation.
    found = LoadedModel(tmp_path / "cut")
    assert found.metadata["model"]["kwargs"] == KERAS
    report = predictions_file.read(tmp_path / "cut" / "report" / "predictions.csv")
    faces = read.load(tiny_data, "validation").images
    np.testing.assert_allclose(found.predict(faces, progress=False), report.probs, atol=1e-6)


def stop_at_2(config, workdir, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(PreemptedError):
        patch.setattr("fer_jax.training.train.preempted", lambda stop, step: step == 2)
        train_and_evaluate(config, workdir)


def test_a_start_that_saved_nothing_leaves_no_trace(parent, trained, tiny_data, tmp_path, monkeypatch):
    """The parent does not fit, is replaced by random weights, and the run is stopped and resumed."""
    child = child_config(tiny_data, parent, channels=1)
    with pytest.raises(ValueError, match="the given weights are of another network"):
        train_and_evaluate(child, tmp_path / "cut")
    random = simple_config(tiny_data, **{"train.steps": 6})
    stop_at_2(random, tmp_path / "cut", monkeypatch)
    train_and_evaluate(random, tmp_path / "cut")
    whole, _ = trained(random)
    assert_same_run(whole, tmp_path / "cut", step=6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.mean": 0.48}, r"config.model.mean is 0.48, .* with \[0.485, .* at its default, 0.5077"),
        ({"model.std": 0.22}, "config.model.std is 0.22, .* leave config.model.std at its default, 0.255"),
        ({"model.name": "resnet18"}, "init_from is '.*', weights of strided, but config.model.name is"),
    ],
)
def test_contradictions_are_refused(changes, message, parent, tiny_data, tmp_path):
    with pytest.raises(ValueError, match=message):
        train_and_evaluate(child_config(tiny_data, parent, **changes), tmp_path / "run")


def test_a_mean_that_is_the_parents_is_none(tiny_data, tmp_path):
    path = write_parent(tmp_path / "parent.safetensors", tiny_data, 1, GRAY)
    changes = {"model.mean": 0.48, "model.std": 0.22}
    _, facts = begin(child_config(tiny_data, path, 1, **changes), tmp_path / "run")
    assert {name: facts["preprocess"][name] for name in GRAY} == GRAY


def test_weights_without_a_runs_facts_are_named(parent, tiny_data, tmp_path):
    """A file from fer-jax port-weights belongs in init.weights."""
    variables, _ = load_weights(parent)
    export_weights(parent, variables, {"model": "strided", "preprocess": IMAGENET})
    with pytest.raises(ValueError, match=f"config.init_from: the metadata in {parent} lacks model.name, "):
        train_and_evaluate(child_config(tiny_data, parent), tmp_path / "run")
    shutil.copy(__file__, parent)
    with pytest.raises(Exception, match=f"config.init_from: {parent} is not a complete safetensors file"):
        train_and_evaluate(child_config(tiny_data, parent), tmp_path / "run")
