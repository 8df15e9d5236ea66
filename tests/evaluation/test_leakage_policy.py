"""Tests that the reported score depends on the split's influence on the weights."""

import json
import pathlib
import re

import numpy as np
import pytest

from fer_jax.evaluation import leakage_policy
from fer_jax.pretrained import registry

SELECTION = {"split": "validation", "metric": "accuracy", "value": 0.7, "step": 1200}


def data(**hashes):
    return {"name": "faces", "splits": {name: {"hash": found} for name, found in hashes.items()}}


TRAINED = data(train="t", validation="v")
HERE = data(train="t", validation="v", test="w")


def assess(split, copies=(0, 0, 0, 0), **metadata):
    metadata = {"data": HERE, "trained_data": TRAINED, "selection": SELECTION} | metadata | {"split": split}
    return leakage_policy.assess(metadata, None if copies is None else np.array(copies, np.int8))


@pytest.mark.parametrize(
    ("found", "trained", "selected", "headline", "note"),
    [
        (assess("test"), False, False, "accuracy", "not used.*None of its images has a duplicate"),
        (
            assess("test", copies=(0, 2, 1, 2)), False, False, "without_near",
            "2 of its images have an identical and 1 a near duplicate there .*, which the headline excludes",
        ),
        (assess("test", (1, 2, 1, 2)), False, False, None, "No headline: every image.*2 identical, 2 near"),
        (assess("test", copies=None), False, False, None, "No headline.*--training_data"),
        (assess("validation"), False, True, None, "No headline: selected on this split.*optimistic"),
        (assess("train"), True, False, None, "No headline: the model was trained on this split"),
        # The used splits under other names.
        (assess("test", data=data(train="x", test="v")), False, True, None, "selected on this split"),
        (assess("test", data=data(train="x", test="t")), True, False, None, "trained on this split"),
        # Data from another source, compared with the training data.
        (assess("validation", data=data(validation="y")), False, False, "accuracy", "`validation` was not"),
        (assess("test", selection=None), False, False, "accuracy", "not used in training\\."),
        # The weights of the last step of a training that scores have influenced.
        (assess("validation", selection=None), False, False, "accuracy", "not used"),
        (assess("validation", selection=None, steered_by="validation"), False, True, None, "steered"),
        # Weights without this metadata.
        (assess("test", trained_data={"name": "old"}), None, None, None, "unknown"),
        (assess("test", trained_data=data(train="t")), None, None, None, "unknown"),
        (assess("test", data=None), None, None, None, "unknown"),
    ],
)  # fmt: skip
def test_verdicts(found, trained, selected, headline, note):
    assert found["trained_on_this_split"] is trained
    assert found["selected_on_this_split"] is selected
    assert found["headline"] == headline
    assert re.search(note, found["note"])
    assert ("headline" in found["note"].lower()) == (headline != "accuracy")


def test_copies_are_counted():
    assert assess("test", copies=(0, 2, 1, 2))["copies"] == {"near": 1, "identical": 2}
    assert assess("test", copies=None)["copies"] is None


def test_splits_are_found_by_what_they_hold():
    wanted = ["t", "v", "gone"]
    assert leakage_policy.find_splits(wanted, data(train="v", test="t")) == {"t": "test", "v": "train"}
    assert leakage_policy.find_splits(wanted, data(train="z")) == {}


def test_weights_inherit_what_their_parents_have_seen():
    """Training B starts from the weights of A, so the data of A counts as used by B."""
    first = {"data": TRAINED, "selection": SELECTION, "annotations": ["ferplus"]}
    own = {"annotations": [], "trained_data": data(train="x", validation="y")}
    second = leakage_policy.inherit(own, first)
    assert second["annotations"] == ["ferplus"]
    second["selection"] = None
    for split, trained, selected, note in (
        ("train", True, False, "trained on this split"),
        ("validation", False, True, "selected its initial weights or teachers"),
        ("test", False, False, "nor for initial weights or teachers."),
    ):
        found = assess(split, **second)
        assert (found["trained_on_this_split"], found["selected_on_this_split"]) == (trained, selected)
        assert (found["headline"] is None) == (split != "test") and note in found["note"]
    # Likewise for the weights of a third training on the data of the second.
    third = leakage_policy.inherit(
        {"annotations": [], "trained_data": data(train="z")}, second | {"data": data(train="x")}
    )
    assert {one.hash for one in leakage_policy.used_splits(third)} == {"z", "x", "t", "v"}
    # A parent without this metadata.
    unknown = leakage_policy.inherit({"annotations": [], "trained_data": TRAINED}, {})
    assert assess("test", **unknown)["headline"] is None


def test_the_ledger_counts_evaluations_on_test(tmp_path, capsys):
    metadata = {"split": "test", "selection": SELECTION, "data_hash": "h", "labels": "given"}
    metadata["checkpoint"] = str(tmp_path / "best.safetensors")
    step = metadata | {"checkpoint": str(tmp_path / "checkpoints" / "9")}  # of the same run
    assert leakage_policy.record_test(metadata, 0.5, "a") == 1
    assert leakage_policy.record_test(metadata | {"split": "validation"}, 0.5, "a") is None
    assert leakage_policy.record_test(step, 0.6, "b") == 2
    first, second = map(json.loads, (tmp_path / leakage_policy.LEDGER).read_text().splitlines())
    assert first.pop("time").endswith("+00:00") and second["accuracy"] == 0.6 and second["weights"] == "9"
    assert first == {
        "weights": "best.safetensors", "step": 1200, "data_hash": "h", "labels": "given", "what": "a",
        "accuracy": 0.5,
    }  # fmt: skip
    assert leakage_policy.record_test(metadata | {"checkpoint": str(tmp_path / "no" / "w")}, 0.5, "a") is None
    assert f"not recorded: [Errno 2] No such file or directory: '{tmp_path / 'no'}" in capsys.readouterr().err


@pytest.mark.parametrize("variable", ["FER_JAX_STATE", "XDG_STATE_HOME", "HOME"])
def test_the_ledger_of_a_bundled_network_is_the_users(variable, tmp_path, monkeypatch, capsys):
    """The package directory may not be writable."""
    for name in ("FER_JAX_STATE", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    below = {"FER_JAX_STATE": "", "XDG_STATE_HOME": "fer_jax", "HOME": ".local/state/fer_jax"}[variable]
    metadata = {"split": "test", "data_hash": "h", "labels": "given"}
    package = sorted(registry.find_weights(name) for name in registry.BUNDLED)
    folder = pathlib.Path(package[0]).parent
    before = sorted(folder.iterdir())
    for weights in package[:2]:  # counted separately
        for number in (1, 2):
            found = leakage_policy.record_test(metadata | {"checkpoint": weights}, 0.5, "a")
            assert found == number
    assert sorted(folder.iterdir()) == before
    ledgers = sorted((tmp_path / below).glob("*/test_evaluations.jsonl"))
    assert [path.parent.name for path in ledgers] == sorted(map(registry.name_of, package[:2]))
    (tmp_path / "file").touch()
    monkeypatch.setenv("FER_JAX_STATE", str(tmp_path / "file"))
    assert leakage_policy.record_test(metadata | {"checkpoint": package[0]}, 0.5, "a") is None
    assert "not recorded: cannot write to" in (said := capsys.readouterr().err)
    assert said.endswith("give another $FER_JAX_STATE\n")


def test_without_a_home_folder_a_bundled_network_is_not_counted(monkeypatch, capsys):
    for name in ("FER_JAX_STATE", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def missing():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "home", missing)
    metadata = {"split": "test", "data_hash": "h", "labels": "given"}
    metadata["checkpoint"] = registry.find_weights(registry.DEFAULT)
    assert leakage_policy.record_test(metadata, 0.5, "a") is None
    assert "set $FER_JAX_STATE to a writable folder" in capsys.readouterr().err
