"""Every experiment, shrunk and run for a step; the fields' names and types."""

import importlib
import json

import pytest
from helpers import ROOT

from configs.default import augmentation, get_config
from fer_jax import models
from fer_jax.data import augment
from fer_jax.models import MODELS
from fer_jax.train import train_and_evaluate
from fer_jax.workdir import flatten

EXPERIMENTS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")


def shrunk(config, data_dir):
    """The experiment with narrow layers, one step of small faces."""
    config.data.dir = str(data_dir)
    config.train.steps = 1
    config.train.batch_size = 8
    config.optim.warmup_epochs = 0.0
    config.model.input_size = 24
    config.train.sizes = [(until, 16) for until, _ in config.train.sizes]
    kwargs = config.model.kwargs.to_dict()
    widths = kwargs.get("widths", MODELS[config.model.name].widths)
    config.model.kwargs = kwargs | {"widths": [4] * len(widths), "hidden": 8}
    return config


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs(name, tiny_data, tmp_path):
    config = importlib.import_module(f"configs.{name}").get_config()
    summary = train_and_evaluate(shrunk(config, tiny_data), tmp_path / name)
    assert summary["steps"] == 1 and 0 <= summary["accuracy"] <= 1
    report = json.loads((tmp_path / name / "report" / "report.json").read_text())
    assert report["num_examples"] == 28


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_only_overrides(name):
    """The fields are the default's, with its types, and the model takes what it is given."""
    config = importlib.import_module(f"configs.{name}").get_config()
    ours, default = (flatten(c.to_dict()) for c in (config, get_config()))
    own = {key for key in ours if key.startswith("model.kwargs")}
    assert ours.keys() - own == default.keys() - {"model.kwargs"}
    for key in ours.keys() - own:
        if default[key] is not None and ours[key] is not None:
            assert type(ours[key]) is type(default[key]), key
    models.create(config.model.name, **config.model.kwargs.to_dict())
    assert importlib.import_module(f"configs.{name}").__doc__


def test_a_typo_suggests_the_field():
    config = get_config()
    config.augment = augmentation("light")
    with pytest.raises(AttributeError, match='Did you mean "learning_rate"'):
        config.optim.learnin_rate = 0.1
    with pytest.raises(AttributeError, match='Did you mean "optim"'):
        config.optm.learning_rate = 0.1
    with pytest.raises(AttributeError, match='Did you mean "rotation"'):
        config.augment.rotatoin = 10.0


def test_a_field_keeps_its_type():
    config = get_config()
    with pytest.raises(TypeError):
        config.optim.learning_rate = "fast"
    with pytest.raises(TypeError):
        config.train.batch_size = 1.5
    config.augment.rotation = 12.5
    config.train.steps = 7


@pytest.mark.parametrize("preset", augment.PRESETS)
def test_presets_become_fields_and_ranges_again(preset):
    fields = augmentation(preset).to_dict()
    assert augment.Ranges(**fields) == augment.PRESETS[preset]
    # Floats take fractions from the command line.
    assert not any(isinstance(value, int) for value in fields.values())


def test_every_field_is_explained():
    lines = (ROOT / "configs" / "default.py").read_text().splitlines()
    fields = [line for line in lines if line.startswith("    c.") and " = " in line]
    assert [line for line in fields if "#" not in line and "ConfigDict()" not in line] == []
