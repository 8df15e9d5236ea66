"""Tests files of weights with metadata."""

import json
import os
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import assert_trees_equal
from safetensors.numpy import load_file, save, save_file

from fer_jax.pretrained.weights_file import DamagedCheckpointError, export_weights, load_weights, with_notes
from fer_jax.training.run_dir import flatten

FACTS = {"model": {"name": "cnn_relu", "kwargs": {"widths": [4, 8]}}, "seed": 3, "selection": None}


@pytest.fixture
def variables():
    rng = np.random.default_rng(5)
    return {
        "params": {
            "Conv_0": {"kernel": rng.normal(size=(3, 3, 1, 4)).astype(np.float32)},
            "Dense_0": {
                "kernel": rng.normal(size=(40, 70)).astype(np.float32),
                "bias": rng.normal(size=70).astype(np.float32),
            },
        },
        "batch_stats": {"BatchNorm_0": {"mean": rng.normal(size=4).astype(np.float32)}},
    }


def test_exported_weights_come_back(variables, tmp_path):
    path = tmp_path / "w.safetensors"
    export_weights(path, jax.tree.map(jnp.asarray, variables), FACTS)
    loaded, facts = load_weights(path)
    assert_trees_equal(loaded, variables)
    assert facts == FACTS
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
    # Other readers see the same names and values.
    tensors = load_file(path)
    np.testing.assert_array_equal(tensors["params/Dense_0/kernel"], variables["params"]["Dense_0"]["kernel"])


def test_float16_is_for_kernels_only(variables, tmp_path):
    path = tmp_path / "w.safetensors"
    export_weights(path, variables, FACTS, dtype="float16")
    stored = {name: value.dtype.name for name, value in load_file(path).items()}
    assert stored == {
        "params/Conv_0/kernel": "float16",
        "params/Dense_0/kernel": "float16",
        "params/Dense_0/bias": "float32",
        "batch_stats/BatchNorm_0/mean": "float32",
    }
    loaded, _ = load_weights(path)
    expected = jax.tree.map(lambda x: x.astype(np.float16).astype(np.float32) if x.ndim > 1 else x, variables)
    assert_trees_equal(loaded, expected)


def test_a_work_directory_gives_its_best(variables, tmp_path):
    export_weights(tmp_path / "best.safetensors", variables, FACTS | {"seed": 4})
    export_weights(tmp_path / "last.safetensors", jax.tree.map(np.zeros_like, variables), FACTS)
    loaded, facts = load_weights(tmp_path)
    assert_trees_equal(loaded, variables)
    assert facts["seed"] == 4


def test_missing_weights_say_what_is_expected(tmp_path):
    for path in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError) as error:
            load_weights(path)
        assert str(path) in str(error.value)
        assert "best.safetensors" in str(error.value) and "checkpoints" in str(error.value)


class Evil:
    """An object that creates a folder when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_garbage_is_reported_and_never_unpickled(variables, tmp_path):
    whole = tmp_path / "w.safetensors"
    export_weights(whole, variables, FACTS)
    data = whole.read_bytes()
    garbage = {
        "text": b"hello",
        "empty": b"",
        "cut": data[: len(data) // 2],
        "pickle": pickle.dumps(Evil(tmp_path / "evil")),
    }
    for name, content in garbage.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(DamagedCheckpointError, match=re.escape(str(path))):
            load_weights(path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"facts": "{half"}])
def test_weights_of_others_are_refused(tmp_path, metadata):
    path = tmp_path / "model.safetensors"
    save_file({"weight": np.zeros(3, np.float32)}, path, metadata)
    with pytest.raises(DamagedCheckpointError, match="fer_jax metadata") as error:
        load_weights(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("mask", [1, 0x20, 0xFF])
def test_any_byte_that_changed_is_noticed_or_harmless(mask, tmp_path):
    """This includes changes that make it look like an older file: the same values without a digest."""
    path = tmp_path / "w.safetensors"
    variables = {"params": {"a": np.arange(4, dtype=np.float32)[None], "b": np.ones(2, np.float32)}}
    export_weights(path, variables, FACTS)
    content, harmless = path.read_bytes(), 0
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= mask
        path.write_bytes(damaged)
        try:
            loaded, facts = load_weights(path)
        except DamagedCheckpointError as error:
            assert str(path) in str(error)
            continue
        harmless += 1
        assert_trees_equal(loaded, variables | {"batch_stats": {}})
        assert facts == FACTS
    assert harmless < 20  # the digest's name, and the padding
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(DamagedCheckpointError):
            load_weights(path)


@pytest.mark.parametrize(
    "header", [{"facts": "[]"}, {"facts": "3"}, {"facts": "[" * 100_000}, {"digest": "sha256:0"}]
)
def test_a_foreign_header_is_refused_in_a_line(tmp_path, header):
    path = tmp_path / "w.safetensors"
    path.write_bytes(save({"params/a": np.zeros(3, np.float32)}, {"facts": json.dumps(FACTS)} | header))
    with pytest.raises(DamagedCheckpointError, match=re.escape(str(path))):
        load_weights(path)


def test_a_file_without_a_digest_is_loaded_with_one_note(variables, tmp_path, caplog):
    path = tmp_path / "old.safetensors"
    tensors = {name.replace(".", "/"): value for name, value in flatten(variables).items()}
    path.write_bytes(save(tensors, {"facts": json.dumps(FACTS)}))
    for _ in range(2):
        loaded, facts = load_weights(path)
        assert_trees_equal(loaded, variables)
        assert facts == FACTS
    assert caplog.messages == [
        f"{path} has no digest, as files from older versions: damage cannot be detected"
    ]


def test_a_file_is_the_same_whenever_it_is_written(variables, tmp_path):
    """The order in the header is stable, whatever the amount of metadata."""
    found = set()
    for name in "abc":
        export_weights(tmp_path / name, variables, FACTS)
        found.add(with_notes((tmp_path / name).read_bytes(), {"export": "{}", "other": "x"}))
    (content,) = found
    (tmp_path / "w.safetensors").write_bytes(content)
    loaded, facts = load_weights(tmp_path / "w.safetensors")  # its digest includes the metadata
    assert_trees_equal(loaded, variables)
    (tmp_path / "w.safetensors").write_bytes(content.replace(b'"other":"x"', b'"other":"y"'))
    with pytest.raises(DamagedCheckpointError, match="digest differs"):
        load_weights(tmp_path / "w.safetensors")


def test_facts_are_json(variables, tmp_path):
    with pytest.raises(TypeError):
        export_weights(tmp_path / "w.safetensors", variables, {"seed": np.zeros(3)})
    assert not list(tmp_path.iterdir())
