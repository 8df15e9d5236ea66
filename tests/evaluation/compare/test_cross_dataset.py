"""Every checkpoint on every dataset: the figures, and what each dataset had to do with each training."""

import json

import jax
import numpy as np
import pytest
from helpers import script
from PIL import Image

from fer_jax import models
from fer_jax.data.dataset import builder
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import folders, synthetic
from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.compare import cross_dataset
from fer_jax.loaded_model import LoadedModel
from fer_jax.pretrained import registry
from fer_jax.weights_file import export_weights


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Another dataset: two faces a class to test on, and a class that was left out."""
    root = tmp_path_factory.mktemp("mine")
    images, labels = synthetic.generate(2, 9, "test")
    names = [EMOTIONS[label] for label in labels] + ["contempt"]
    for i, (name, image) in enumerate(zip(names, [*images, images[0]], strict=True)):
        path = root / "images" / "test" / name / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    class_map = folders.parse_map(["contempt=drop"])
    builder.build(root / "images", root / "mine", class_map=class_map, progress=False)
    return root / "mine"


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_data):
    """A network of seven classes selected on the tiny data's validation split, and one of eight."""
    folder = tmp_path_factory.mktemp("weights")
    manifest = builder.read_manifest(tiny_data)
    for count, name in ((7, "seven"), (8, "eight")):
        model = models.create("cnn_relu", count, widths=(4,), depths=(1,), hidden=4)
        variables = jax.jit(model.init)(
            {"params": np.array([0, count], np.uint32)}, np.zeros((1, 12, 12, 1), np.float32)
        )
        preprocess = {"image_size": 12, "channels": 1, "mean": 0.5, "std": 0.25, "fill": "reflect"}
        facts = {
            "model": {"name": "cnn_relu", "kwargs": {"widths": [4], "depths": [1], "hidden": 4}},
            "preprocess": preprocess | {"interpolation": "bilinear"},
            "emotions": [*EMOTIONS, "contempt"][:count],
            "data": builder.describe(manifest),
            "data_hash": manifest["content_hash"],
            "selection": {"split": "validation", "metric": "accuracy", "value": 0.5, "step": 3},
            "annotations": ["ferplus"] if count == 8 else [],
        }
        export_weights(folder / f"{name}.safetensors", variables, facts)
    return [folder / "seven.safetensors", folder / "eight.safetensors"]


@pytest.fixture(scope="module")
def program():
    return script("cross_dataset")


def test_the_matrix(program, weights, tiny_data, mine, tmp_path, capsys):
    words = ["--checkpoints", *map(str, weights), "--data", str(tiny_data), str(mine)]
    assert program.main([*words, "--split", "test", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "cross.json").read_text())
    assert (found["checkpoints"], found["datasets"]) == (["seven", "eight"], ["data", "mine"])
    parts = [(cell["checkpoint"], cell["dataset"], cell["part"]) for cell in found["cells"]]
    assert parts == [
        ("seven", "data", "trained on this dataset"), ("seven", "mine", "no part"),
        ("eight", "data", "trained on this dataset"), ("eight", "mine", "no part"),
    ]  # fmt: skip
    faces = builder.load(mine, "test")
    probs = LoadedModel(weights[1]).predict(faces.images, progress=False)
    expected = probs[:, :7] / probs[:, :7].sum(axis=1, keepdims=True)
    stored = predictions_file.read(tmp_path / "eight" / "mine.csv")
    np.testing.assert_allclose(stored.probs, expected, atol=1e-6)
    cell = found["cells"][3]
    assert cell["accuracy"] == np.mean(expected.argmax(1) == faces.labels) and cell["num_examples"] == 14
    low, high = cell["interval_95"]["accuracy"]
    assert low <= cell["accuracy"] <= high
    page = (tmp_path / "cross.md").read_text()
    assert "- eight: contempt's probability is dropped and the others renormalised" in page
    assert "- eight: extra annotations, ferplus" in page
    assert "- mine: 1 images of class contempt left out (--map contempt=drop)" in page
    assert f"{100 * cell['accuracy']:.2f} (" in page and ", own data |" in page
    assert (tmp_path / "cross.png").read_bytes().startswith(b"\x89PNG")
    assert "Accuracy in percent" in capsys.readouterr().out


def test_contempt_as_a_wrong_answer_of_a_network_of_the_package(
    program, weights, mine, tmp_path, monkeypatch
):
    monkeypatch.setitem(registry.BUNDLED, "ours", str(weights[1]))
    words = ["--checkpoints", "ours", "--data", str(mine), "--contempt", "wrong"]
    assert program.main([*words, "--out", str(tmp_path)]) == 0
    faces = builder.load(mine, "test")
    probs = LoadedModel(weights[1]).predict(faces.images, progress=False)
    (cell,) = json.loads((tmp_path / "cross.json").read_text())["cells"]
    assert cell["accuracy"] == np.mean(probs.argmax(1) == faces.labels)
    assert cell["part"] == "not known" and cell["without_near"] is None  # the training's data are not given
    page = (tmp_path / "cross.md").read_text()
    assert "contempt counts as a wrong answer" in page and ", ? |" in page


def test_copies_of_the_training_are_found_and_the_test_is_noted(program, weights, tiny_data, tmp_path):
    """Another dataset whose test split is half of this training's faces."""
    train, (images, labels) = builder.load(tiny_data, "train"), synthetic.generate(1, 5, "test")
    faces = [*zip(train.images[:7], train.labels[:7], strict=True), *zip(images, labels, strict=True)]
    for i, (image, label) in enumerate(faces):
        path = tmp_path / "images" / "test" / EMOTIONS[label] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    builder.build(tmp_path / "images", tmp_path / "copied", progress=False)
    ledger = weights[0].with_name("test_evaluations.jsonl")
    before = len(ledger.read_text().splitlines()) if ledger.exists() else 0
    words = ["--checkpoints", str(weights[0]), "--data", str(tiny_data), str(tmp_path / "copied")]
    assert program.main([*words, "--out", str(tmp_path / "out")]) == 0
    cell = json.loads((tmp_path / "out" / "cross.json").read_text())["cells"][1]
    assert cell["part"] == "copies" and cell["copies"]["identical"] == 7
    found = predictions_file.read(tmp_path / "out" / "seven" / "copied.csv")
    rest = found.copies == 0
    assert 0 < rest.sum() <= 7 and cell["without_near"]["num_examples"] == rest.sum()
    right = found.probs.argmax(axis=1) == found.labels
    assert cell["without_near"]["accuracy"] == right[rest].mean() and cell["accuracy"] == right.mean()
    assert len(ledger.read_text().splitlines()) == before + 2


def test_what_a_split_had_to_do_with_the_weights():
    def data(**hashes):
        return {"splits": {name: {"hash": value} for name, value in hashes.items()}}

    trained = data(train="t", validation="v", test="w")
    chosen = {"split": "validation", "metric": "accuracy"}
    none, some = np.zeros(3, np.int8), np.array([0, 1, 0], np.int8)

    def part(here, split, copies=none, selection=None, trained=trained):
        facts = {"trained_data": trained, "selection": selection, "data": here, "split": split}
        return cross_dataset.part_of(facts, copies)

    assert part(data(train="t"), "train") == "trained on this split"
    assert part(data(validation="v"), "validation", selection=chosen) == "selected on this split"
    assert part(data(validation="x", train="t"), "validation") == "trained on this dataset"
    assert part(data(validation="v"), "validation") == "no part"
    # Data of another name that hold the same faces, and data that nothing is known of.
    assert part(data(validation="x"), "validation", some) == "copies"
    assert part(data(validation="x"), "validation", None) == "not known"
    assert part(data(test="w"), "test", None, trained={"splits": {}}) == "not known"


def test_complaints(program, weights, tiny_data, mine, tmp_path, capsys):
    words = ["--checkpoints", str(weights[0]), "--out", str(tmp_path), "--data", str(mine)]
    assert program.main([*words, "--split", "validation"]) == 2
    assert "mine has no validation split; it has: test" in capsys.readouterr().err
    assert program.main([*words, str(mine)]) == 2
    assert "given twice" in capsys.readouterr().err
    assert program.main(["--checkpoints", "cnn_65", *words[2:]]) == 2
    err = capsys.readouterr().err
    assert "there are no weights cnn_65" in err and "cnn_1m_64, cnn_64, " in err
