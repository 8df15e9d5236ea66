"""Tests every checkpoint on every dataset: the metrics, and the relation of each dataset to each training."""

import json

import jax
import numpy as np
import pytest
from helpers import build_dataset, metadata_of, named, script

from fer_jax import models
from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import classes, synthetic
from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.compare import cross_dataset
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.weights_file import export_weights


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Returns another dataset: two test faces per class, with contempt dropped."""
    images, labels = synthetic.generate(2, 9, "test")
    faces = {"test": [*named(images, labels), (images[0], "contempt")]}
    how = {"class_map": classes.parse(["contempt=drop"])}
    return build_dataset(tmp_path_factory.mktemp("mine") / "mine", faces, **how)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_data):
    """Returns a network with seven classes, selected on the tiny validation split, and one with eight."""
    folder = tmp_path_factory.mktemp("weights")
    kwargs = {"widths": [4], "depths": [1], "hidden": 4}
    for count, name in ((7, "seven"), (8, "eight")):
        model = models.create("cnn_relu", count, **kwargs)
        key = {"params": np.array([0, count], np.uint32)}
        variables = jax.jit(model.init)(key, np.zeros((1, 12, 12, 1), np.float32))
        own = {"emotions": [*EMOTIONS, "contempt"][:count], "annotations": ["ferplus"] if count == 8 else []}
        metadata = metadata_of(kwargs, 12, tiny_data, **own)
        export_weights(folder / f"{name}.safetensors", variables, metadata)
    return [folder / "seven.safetensors", folder / "eight.safetensors"]


@pytest.fixture
def cross(tmp_path):
    """Runs the command on checkpoints and datasets; returns its exit code, cross.json, and cross.md."""

    def call(checkpoints, data, *flags, code=0):
        words = ["--checkpoints", *map(str, checkpoints), "--data", *map(str, data), *flags]
        assert script("cross_dataset").main([*words, "--out", str(tmp_path / "out")]) == code
        if not code:
            files = (tmp_path / "out" / name for name in ("cross.json", "cross.md"))
            found, page = (file.read_text() for file in files)
            return json.loads(found), page

    return call


def test_the_matrix(cross, weights, tiny_data, mine, tmp_path, capsys):
    found, page = cross(weights, [tiny_data, mine], "--split", "test")
    assert (found["checkpoints"], found["datasets"]) == (["seven", "eight"], ["data", "mine"])
    parts = [(cell["checkpoint"], cell["dataset"], cell["part"]) for cell in found["cells"]]
    assert parts == [
        ("seven", "data", "trained on this dataset"), ("seven", "mine", "no part"),
        ("eight", "data", "trained on this dataset"), ("eight", "mine", "no part"),
    ]  # fmt: skip
    faces = read.load(mine, "test")
    probs = LoadedModel(weights[1]).predict(faces.images, progress=False)
    expected = probs[:, :7] / probs[:, :7].sum(axis=1, keepdims=True)
    stored = predictions_file.read(tmp_path / "out" / "eight" / "mine.csv")
    np.testing.assert_allclose(stored.probs, expected, atol=1e-6)
    cell = found["cells"][3]
    assert cell["accuracy"] == np.mean(expected.argmax(1) == faces.labels) and cell["num_examples"] == 14
    low, high = cell["interval_95"]["accuracy"]
    assert low <= cell["accuracy"] <= high
    assert "- eight: contempt is dropped, and the other probabilities are renormalized" in page
    assert "- eight: extra annotations, ferplus" in page
    assert "- mine: 1 images of class contempt left out (--map contempt=drop)" in page
    (row,) = [line for line in page.split("Macro F1")[0].splitlines() if line.startswith("| eight |")]
    own, other = row.strip("| ").split(" | ")[1:]
    assert own.endswith("), own data") and other.startswith(f"{100 * cell['accuracy']:.2f} (")
    assert (tmp_path / "out" / "cross.png").read_bytes().startswith(b"\x89PNG")
    assert "Accuracy in percent" in capsys.readouterr().out


def test_contempt_as_a_wrong_answer_of_a_network_of_the_package(cross, weights, mine, bundle):
    bundle("ours", weights[1])
    found, page = cross(["ours"], [mine], "--split", "test", "--contempt", "wrong")
    faces = read.load(mine, "test")
    probs = LoadedModel(weights[1]).predict(faces.images, progress=False)
    (cell,) = found["cells"]
    assert cell["accuracy"] == np.mean(probs.argmax(1) == faces.labels)
    assert cell["part"] == "not known" and cell["without_near"] is None  # without the training dataset
    assert "contempt counts as an error" in page and ", ? |" in page and "| ? |" in page


def test_copies_of_the_training_are_found_and_the_test_is_noted(cross, weights, tiny_data, tmp_path):
    """Half of the other dataset's test split are training faces."""
    train, (images, labels) = read.load(tiny_data, "train"), synthetic.generate(1, 5, "test")
    faces = [*named(train.images[:7], train.labels[:7]), *named(images, labels)]
    copied = build_dataset(tmp_path / "copied", {"test": faces})
    ledger = weights[0].with_name("test_evaluations.jsonl")
    before = len(ledger.read_text().splitlines()) if ledger.exists() else 0
    found, page = cross(weights[:1], [tiny_data, copied], "--split", "test")
    cell = found["cells"][1]
    assert cell["part"] == "copies" and cell["copies"]["identical"] == 7
    found = predictions_file.read(tmp_path / "out" / "seven" / "copied.csv")
    rest = found.copies == 0
    assert 0 < rest.sum() <= 7 and cell["without_near"]["num_examples"] == rest.sum()
    right = found.probs.argmax(axis=1) == found.labels
    assert cell["without_near"]["accuracy"] == right[rest].mean() and cell["accuracy"] == right.mean()
    assert f"), {14 - rest.sum()} excluded |" in page
    assert len(ledger.read_text().splitlines()) == before + 2


def test_what_a_split_had_to_do_with_the_weights():
    def part(split, copies=0, selection=None, trained=("t", "v", "w"), **hashes):
        names = dict(zip(("train", "validation", "test"), trained, strict=False))
        known, data = ({"splits": {key: {"hash": of[key]} for key in of}} for of in (names, hashes))
        metadata = {"trained_data": known, "selection": selection, "data": data, "split": split}
        return cross_dataset.part_of(metadata, None if copies is None else np.array([0, copies, 0], np.int8))

    chosen = {"split": "validation", "metric": "accuracy"}
    assert part("train", train="t") == "trained on this split"
    assert part("validation", selection=chosen, validation="v") == "selected on this split"
    assert part("validation", validation="x", train="t") == "trained on this dataset"
    assert part("validation", validation="v") == "no part"
    # The same faces under another name, and unknown data.
    assert part("validation", 1, validation="x") == "copies"
    assert part("validation", None, validation="x") == part("test", None, trained=(), test="w") == "not known"


def test_complaints(cross, weights, mine, capsys):
    for arguments, words in (
        ((weights[:1], [mine], "--split", "validation"), ["mine has no validation split; it has: test"]),
        ((weights[:1], [mine, mine]), ["given twice"]),
        ((["cnn_65"], [mine]), ["there are no weights cnn_65", "cnn_1m_64, effnet_b0, "]),
    ):
        cross(*arguments, code=2)
        message = capsys.readouterr().err
        assert all(part in message for part in words)
