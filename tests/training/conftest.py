"""Fixtures for tests of training: networks that compile quickly, and runs that are trained once."""

import signal

import flax.linen as nn
import helpers
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Linear, TwoLayers
from small_runs import BIASES, WHOLE, config_of

from fer_jax import models
from fer_jax.data.dataset import read
from fer_jax.training.monitoring import PreemptedError, Window
from fer_jax.training.train import train_and_evaluate


class Constant(nn.Module):
    """A network that predicts `happy` for every face, whatever its parameters."""

    num_classes: int = 7
    dtype: str = "float32"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x, train=False):
        unused = self.param("unused", nn.initializers.ones, (1,))
        return jnp.tile(jnp.float32(BIASES), (len(x), 1)) + 0 * unused


@pytest.fixture(scope="session", autouse=True)
def _networks():
    """Registers the networks "linear", "two_layers", and "constant"."""
    with pytest.MonkeyPatch.context() as patch:
        for name, network in (("linear", Linear), ("two_layers", TwoLayers), ("constant", Constant)):
            patch.setitem(models.MODELS, name, network)
        yield


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """Returns a function that trains a config once -> (run directory, not to be modified, summary)."""
    known = {}

    def train(config, plain=True):
        key = repr(config.to_json_best_effort(sort_keys=True)), plain
        if key not in known:
            workdir = tmp_path_factory.mktemp("run") / "run"
            with helpers.plain_trainings() if plain else pytest.MonkeyPatch.context():
                known[key] = workdir, train_and_evaluate(config, workdir)
        return known[key]

    return train


@pytest.fixture
def whole(trained, tiny_data):
    """Returns the directory and summary of an uninterrupted run, which must not be modified."""
    return trained(config_of(tiny_data, **WHOLE), plain=False)


@pytest.fixture
def resumed(monkeypatch):
    """Returns a function that trains a config, with stops by SIGTERM after given steps and resumptions."""
    add, stops = Window.add, set()

    def add_and_stop(self, step, metrics):
        add(self, step, metrics)
        if step in stops:
            signal.raise_signal(signal.SIGTERM)

    def train(config, workdir, steps):
        stops.update(steps)
        for _ in steps:
            with pytest.raises(PreemptedError):
                train_and_evaluate(config, workdir)
        stops.clear()
        return train_and_evaluate(config, workdir)

    monkeypatch.setattr(Window, "add", add_and_stop)
    return train


@pytest.fixture
def two_angry(tiny_data, tmp_path):
    """Returns an exclude list that leaves 2 of the 10 angry faces among 70 faces."""
    faces = read.load(tiny_data, "train")
    (tmp_path / "ids").write_text("\n".join(np.array(faces.ids)[faces.labels == 0][:8]))
    return str(tmp_path / "ids")
