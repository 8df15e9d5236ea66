"""Tests every experiment, by running a small step or tracing shapes, and the names and types of fields."""

import functools
import importlib
import json

import jax
import numpy as np
import pytest
from helpers import ROOT

from configs.cnn_48_gpu import NETWORKS
from configs.cnn_relu_48_gpu import EPOCHS
from configs.default import augmentation, get_config
from fer_jax import models
from fer_jax.data import augment
from fer_jax.data.dataset import read
from fer_jax.models import MODELS
from fer_jax.training import build, initial_weights, losses, stages, train_step, validate
from fer_jax.training.run_dir import flatten
from fer_jax.training.state import TrainState
from fer_jax.training.train import train_and_evaluate

EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")
RUN = ("ferplus", "quickstart")  # compiling all of them would take minutes
TRACED = [name for name in EXPERIMENTS if name not in RUN]

pytestmark = pytest.mark.usefixtures("plain_trainings")


def experiment(name, data_dir):
    """Returns the config of an experiment on small data, from random weights."""
    module, *argument = name.split(":")
    config = importlib.import_module(f"configs.{module}").get_config(*argument)
    config.data.dir = str(data_dir)
    config.init.weights = "none"
    config.train.batch_size = 8
    config.optim.warmup_epochs = 0.0
    config.distill.teachers = ()
    return config


def shrunk(config):
    """Shrinks a config to one step on small faces, with narrow layers."""
    config.train.steps = 1
    config.model.input_size = 24
    config.train.sizes = [(until, 16) for until, _ in config.train.sizes]
    kwargs = config.model.kwargs.to_dict()
    widths = kwargs.get("widths", MODELS[config.model.name].widths)
    narrow = {"widths": [4] * len(widths)} | ({"hidden": 8} if "hidden" in kwargs else {})
    config.model.kwargs = kwargs | narrow
    return config


def assert_finished(workdir, summary, steps):
    assert summary["steps"] == steps and 0 <= summary["accuracy"] <= 1
    report = json.loads((workdir / "report" / "report.json").read_text())
    assert report["num_examples"] == 28


@pytest.mark.parametrize("name", RUN)
def test_an_experiment_runs(name, tiny_data, tiny_ferplus, tmp_path):
    data = tiny_ferplus if name == "ferplus" else tiny_data
    summary = train_and_evaluate(shrunk(experiment(name, data)), tmp_path / name)
    assert_finished(tmp_path / name, summary, steps=1)


def test_the_flagship_runs_in_its_stages(tiny_data, tmp_path):
    config = experiment("effnet_b0", tiny_data)
    config.model.kwargs = config.model.kwargs.to_dict() | {"width": 0.2, "cut": 1}
    config.model.input_size = 16
    config.stages = [stage | {"epochs": 0.12} for stage in config.stages]  # one step each
    summary = train_and_evaluate(config, tmp_path / "run")
    assert_finished(tmp_path / "run", summary, steps=2)


def family(name):
    """Returns the module of an experiment's network."""
    config = importlib.import_module(f"configs.{name.partition(':')[0]}").get_config()
    return MODELS[config.model.name].__module__


FAMILIES = sorted({family(name) for name in TRACED})


@pytest.fixture(scope="module", autouse=True)
def _blocks_are_traced_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "blocks", functools.cache(stages.blocks))
        yield


@pytest.mark.parametrize("of", FAMILIES)
def test_the_stages_of_a_familys_experiments_fit_their_networks(of, tiny_data):
    """Networks accept their faces, optimizers accept the layers, and one step of each kind is traced."""
    traced = set()
    for name in filter(lambda name: family(name) == of, [*TRACED, "effnet_b0:cpu"]):
        config = experiment(name, tiny_data)
        _, stage_configs = validate.check(config)
        # Attributes that do not affect shapes are made equal, so that most networks are traced once.
        attributes, of_class = config.model.kwargs.to_dict(), MODELS[config.model.name]
        rates = ("dropout", "drop_path", "block_dropout")
        attributes |= {rate: 0.0 for rate in rates if isinstance(getattr(of_class, rate, None), float)}
        config.model.kwargs = attributes
        if config.stages:
            config.model.input_size = min(96, config.model.input_size)
        network = build.model(config.model, config.data.num_classes, config.train.sizes)
        # A few of EfficientNet's blocks suffice, unless a stage counts blocks.
        if hasattr(network, "cut") and not any("last" in stage for stage in config.stages):
            network = network.clone(cut=4)
        for stage in build.make_stages(config, stage_configs, network, 10):
            shapes_of(config, network, stage)
            kind = (config.model.dtype, stage.trained is None, bool(stage.frozen))
            if kind not in traced:
                trace_step(config, network, stage)
                traced.add(kind)


def shapes_of(config, network, stage):
    """Returns the shapes of the variables, and of the optimizer state for trained layers."""
    size = config.model.input_size
    variables = models.variable_shapes(network, (size, size, config.model.channels))
    trained, _ = stages.partition(variables["params"], stage.trained)
    return variables, jax.eval_shape(stage.tx.init, trained)


def trace_step(config, network, stage):
    variables, opt_state = shapes_of(config, network, stage)
    size, how = config.model.input_size, build.preprocess(config, None)
    how |= {"size": size, "trained": stage.trained}
    network = network.clone(frozen=stage.frozen) if stage.frozen else network
    step = train_step.make_train_step(network, stage.tx, losses.cross_entropy, **how)
    state = {"batch_stats": {}} | variables | {"opt_state": opt_state, "ema": {}, "step": np.int32(0)}
    state |= {"lr_scale": np.float32(1), "rng": jax.random.key_data(jax.random.key(0))}
    state = TrainState(**state)
    images = np.zeros((2, 48, 48, 1), np.uint8)
    batch = {"image": images, "target": np.zeros((2, 7), np.float32), **augment.identity(2)}
    new, metrics = jax.eval_shape(step, state, batch)
    shapes = [jax.tree.map(lambda leaf: leaf.shape, s.params) for s in (new, state)]
    assert shapes[0] == shapes[1]
    assert metrics["loss"].shape == ()


def test_the_teachers_of_the_flagship_come_with_the_package(tiny_data):
    config = importlib.import_module("configs.effnet_b0").get_config("cpu")
    config.data.dir = str(tiny_data)
    validate.check(config)
    teachers = initial_weights.teachers(config, read.read_manifest(tiny_data))
    assert [teacher.parameters for teacher in teachers] == [991_911, 1_969_255]


VARIANTS = [(name,) for name in EXPERIMENTS]
VARIANTS += [("cnn_48_gpu", name) for name in NETWORKS] + [("effnet_b0", "cpu")]
VARIANTS += [("cnn_relu_48_gpu", target) for target in EPOCHS]
VARIANTS += [("ferplus", rule) for rule in ("majority", "argmax8", "argmax10", "votes")]


@pytest.mark.parametrize(("name", "arguments"), [(name, of) for name, *of in VARIANTS], ids=str)
def test_an_experiment_only_overrides(name, arguments):
    """It has the default's fields, types, and ranges, and valid attributes of its model."""
    config = importlib.import_module(f"configs.{name}").get_config(*arguments)
    validate.check(config)
    ours, default = (flatten(c.to_dict()) for c in (config, get_config()))
    own = {key for key in ours if key.startswith("model.kwargs")}
    assert ours.keys() - own == default.keys() - {"model.kwargs"}
    for key in ours.keys() - own:
        if default[key] is not None and ours[key] is not None:
            assert type(ours[key]) is type(default[key]), key
    models.create(config.model.name, **config.model.kwargs.to_dict())
    assert importlib.import_module(f"configs.{name}").__doc__
    if name == "ferplus":
        assert config.data.labels == f"ferplus_{(*arguments, 'majority')[0]}"


def test_a_field_keeps_its_name_and_type():
    config = get_config()
    config.augment = augmentation("light")
    with pytest.raises(AttributeError, match='Did you mean "rotation"'):
        config.augment.rotatoin = 10.0
    with pytest.raises(TypeError):
        config.train.batch_size = 1.5
    config.augment.rotation = 12.5
    config.train.steps = 7


@pytest.mark.parametrize("preset", augment.PRESETS)
def test_presets_become_fields_and_ranges_again(preset):
    fields = augmentation(preset).to_dict()
    assert augment.Ranges(**fields) == augment.PRESETS[preset]
    # Floats accept fractions on the command line.
    assert not any(isinstance(value, int) for value in fields.values())


def test_every_field_is_explained():
    lines = (ROOT / "configs" / "default.py").read_text().splitlines()
    fields = [line for line in lines if line.startswith("    c.") and " = " in line]
    assert [line for line in fields if "#" not in line and "ConfigDict()" not in line] == []
