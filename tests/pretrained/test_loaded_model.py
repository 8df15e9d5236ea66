"""Tests labels for scoring: FER+ labels, and seven classes of a network with eight."""

import json

import jax
import numpy as np
import pytest
from helpers import script

from fer_jax import models
from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS, class_names
from fer_jax.evaluation import labelled_split
from fer_jax.evaluation.saliency import heatmaps
from fer_jax.pretrained import weights_file
from fer_jax.pretrained.loaded_model import LoadedModel


@pytest.fixture(scope="module")
def eight(tiny_run, tiny_ferplus, tmp_path_factory):
    """Returns weights with eight classes, trained on FER+ majorities; half the predictions are contempt."""
    _, facts = weights_file.load_weights(tiny_run)
    model = models.create("cnn_relu", 8, **facts["model"]["kwargs"])
    variables = jax.jit(model.init)(jax.random.key(1), np.zeros((1, 48, 48, 1), np.float32))
    head = variables["params"]["Dense_1"]
    head["kernel"] *= 20
    manifest = read.read_manifest(tiny_ferplus)
    facts |= {"emotions": list(class_names(8)), "labels": "ferplus_majority", "annotations": ["ferplus"]}
    facts |= {"data": read.describe(manifest), "data_hash": manifest["content_hash"]}
    path = tmp_path_factory.mktemp("eight") / "eight.safetensors"
    weights_file.export_weights(path, variables, facts)
    logits = np.log(LoadedModel(path).predict(read.load(tiny_ferplus, "validation").images, progress=False))
    head["bias"] = head["bias"].at[7].add(np.median(logits[:, :7].max(axis=1) - logits[:, 7]))
    weights_file.export_weights(path, variables, facts)
    return path


def test_the_labels_are_those_of_the_training_unless_others_are_asked_for(eight, tiny_ferplus, tiny_data):
    trained, faces = LoadedModel(eight), read.load(tiny_ferplus, "validation")
    labelled = labelled_split.load_labelled(trained, tiny_ferplus, "validation")
    assert labelled.rule == "ferplus_majority" and labelled.names == [*EMOTIONS, "contempt"]
    assert list(labelled.faces.ids) == list(faces.ids)
    # As in conftest.py, every second neutral face has votes for contempt instead.
    np.testing.assert_array_equal(labelled.whole.labels, faces.labels)
    changed = labelled.faces.labels != faces.labels[labelled.kept]
    assert changed.sum() == 2 and (labelled.faces.labels[changed] == 7).all()
    # With seven classes, these two are excluded.
    seven = labelled_split.load_labelled(trained, tiny_ferplus, "validation", num_classes=7)
    np.testing.assert_array_equal(seven.kept, np.flatnonzero(~changed))
    assert seven.names == list(EMOTIONS) and list(seven.faces.ids) == [faces.ids[i] for i in seven.kept]
    with pytest.raises(ValueError, match="cannot score 8 classes: labels given have 7"):
        labelled_split.load_labelled(trained, tiny_ferplus, "validation", "given", num_classes=8)
    given = labelled_split.load_labelled(trained, tiny_ferplus, "validation", "given")
    assert given.names == list(EMOTIONS)
    np.testing.assert_array_equal(given.faces.labels, faces.labels)
    with pytest.raises(ValueError, match="need FER\\+ votes, but .* has none: prepare it with"):
        labelled_split.load_labelled(trained, tiny_data, "validation")


def test_fewer_classes_are_renormalised(eight, tiny_ferplus):
    trained, images = LoadedModel(eight), read.load(tiny_ferplus, "validation").images
    whole = trained.predict(images, progress=False)
    assert 8 < (whole.argmax(axis=1) == 7).sum() < 20
    seven = trained.predict(images, num_classes=7, progress=False)
    np.testing.assert_allclose(seven, whole[:, :7] / whole[:, :7].sum(axis=1, keepdims=True), rtol=1e-9)
    probs, maps = heatmaps.Explainer(trained, num_classes=7)(images, progress=False)
    np.testing.assert_allclose(probs, seven, atol=1e-5)
    eight_probs, eight_maps = heatmaps.Explainer(trained)(images, progress=False)
    np.testing.assert_allclose(eight_probs, whole, atol=1e-5)
    # Faces predicted as contempt with eight classes have the heatmaps of another class with seven.
    same = whole.argmax(axis=1) < 7
    np.testing.assert_allclose(maps[same], eight_maps[same], atol=1e-5)
    assert all(abs(a - b).max() > 1e-4 for a, b in zip(maps[~same], eight_maps[~same], strict=True))


@pytest.mark.parametrize(
    ("name", "rule", "names"), [("robustness", None, class_names(8)), ("saliency", "given", EMOTIONS)]
)
def test_the_scripts_judge_by_either(name, rule, names, eight, tiny_ferplus, tmp_path):
    arguments = [f"--checkpoint={eight}", f"--data={tiny_ferplus}", "--split=test", f"--out={tmp_path}"]
    ledger = eight.with_name("test_evaluations.jsonl")
    before = len(ledger.read_text().splitlines()) if ledger.exists() else 0
    assert script(name).main([*arguments, *([f"--labels={rule}"] if rule else [])]) == 0
    found = json.loads((tmp_path / f"{name}.json").read_text())
    assert found["emotions"] == list(names) and found["labels"] == (rule or "ferplus_majority")
    trained = LoadedModel(eight)
    labelled = labelled_split.load_labelled(trained, tiny_ferplus, "test", rule)
    predicted = trained.predict(labelled.faces.images, num_classes=len(names), progress=False).argmax(axis=1)
    accuracy = (predicted == labelled.faces.labels).mean()
    *_, noted = map(json.loads, ledger.read_text().splitlines())
    assert len(ledger.read_text().splitlines()) == before + 1
    assert noted["accuracy"] == pytest.approx(accuracy) and noted["what"].startswith(name)
    if name == "robustness":
        assert found["clean"]["accuracy"] == pytest.approx(accuracy)
    else:
        shown = [row for parts in found["sheets"].values() for part in parts.values() for row in part]
        assert sorted(row["prediction"] for row in shown) == sorted(names[i] for i in predicted)
