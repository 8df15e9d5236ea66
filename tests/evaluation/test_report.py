"""The report: every figure follows from the predictions file, everything it links is there."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import report, statistics

FACTS = {
    "model": {"name": "cnn_relu", "kwargs": {"widths": [8, 16]}},
    "config": {"seed": 3, "train": {"epochs": 2}},
    "data_hash": "a" * 64,
    "selection": {"split": "validation", "metric": "accuracy", "value": 0.7, "step": 1200},
    "seed": 3,
    "version": "0.1",
    "ema": True,
    "parameters": 12345,
    "split": "test",
    "tta": "flip",
    "checkpoint": "runs/cnn/best.safetensors",
}


def data_of(train, validation, test):
    """Facts of evaluated data with these hashes of its splits; the training had t and v and no test split."""
    hashes = {"train": train, "validation": validation, "test": test}
    trained = {"train": {"hash": "t"}, "validation": {"hash": "v"}}
    return {
        "data": {"name": "faces", "splits": {name: {"hash": found} for name, found in hashes.items()}},
        "trained_data": {"name": "faces", "splits": trained},
        "trained_data_hash": "b" * 64,
    }


REQUIRED = ("accuracy", "macro_f1", "num_examples", "split", "checkpoint", "config", "data_hash")


def predictions(count=400, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 7, count).astype(np.int32)
    probs = np.exp(2 * rng.normal(size=(count, 7)) + 3 * np.eye(7)[labels])
    images = rng.integers(0, 256, (count, 12, 12, 1), np.uint8)
    return probs / probs.sum(axis=1, keepdims=True), labels, images


def write(out, probs, labels, images=None, facts=FACTS, ids=None, groups=None):
    ids = [f"image {i}" for i in range(len(labels))] if ids is None else ids
    return report.write_report(out, probs, labels, ids, facts=facts, images=images, groups=groups)


def read_predictions(out):
    with open(out / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    probs = np.array([[float(row[name]) for name in EMOTIONS] for row in rows])
    labels, predicted = (np.array([int(r[key]) for r in rows]) for key in ("label", "prediction"))
    return [row["id"] for row in rows], labels, predicted, probs


def test_every_figure_is_scikit_learns_on_the_predictions_file(tmp_path):
    probs, labels, images = predictions()
    write(tmp_path, probs, labels, images)
    result = json.loads((tmp_path / "report.json").read_text())
    _, y, predicted, p = read_predictions(tmp_path)

    np.testing.assert_array_equal(predicted, p.argmax(axis=1))
    expected = {
        "num_examples": len(y),
        "accuracy": metrics.accuracy_score(y, predicted),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted),
        "macro_f1": metrics.f1_score(y, predicted, average="macro"),
        "weighted_f1": metrics.f1_score(y, predicted, average="weighted"),
        "loss": metrics.log_loss(y, p),
        "brier": metrics.brier_score_loss(y, p),
        "mean_confidence": p.max(axis=1).mean(),
    }
    for name, value in expected.items():
        assert result[name] == pytest.approx(value, abs=1e-12), name
    table = metrics.classification_report(y, predicted, target_names=EMOTIONS, output_dict=True)
    for name in EMOTIONS:
        mine = result["per_class"][name]
        theirs = {"f1" if k == "f1-score" else k: v for k, v in table[name].items()}
        assert {key: mine[key] for key in theirs} == pytest.approx(theirs, abs=1e-12)
    np.testing.assert_array_equal(result["confusion_matrix"], metrics.confusion_matrix(y, predicted))
    assert result["ece"] == pytest.approx(statistics.ece(p, y), abs=1e-12)


def test_classes_go_by_the_names_in_the_facts(tmp_path):
    names = [*EMOTIONS, "contempt"]
    labels = np.arange(16) % 8
    probs = np.full((16, 8), 0.02)
    predicted = np.where(np.arange(16) == 15, 0, labels)  # the last one is wrong
    probs[np.arange(16), predicted] = 0.86
    images = np.random.default_rng(0).integers(0, 256, (16, 12, 12, 1), np.uint8)
    result = write(tmp_path, probs, labels, images, facts=FACTS | {"emotions": names})
    assert result["emotions"] == list(result["per_class"]) == names
    assert result["per_class"]["contempt"]["recall"] == 0.5
    header = (tmp_path / "predictions.csv").read_text().splitlines()[0]
    assert header == "id,label,prediction," + ",".join(names)
    assert "prediction (0 to 7: angry" in (tmp_path / "report.md").read_text()


def test_the_file_holds_every_image_once_and_in_full(tmp_path):
    probs, labels, _ = predictions(20)
    ids = ["a,b/1.png", 'quoted "name".jpg', "schön.png", *map(str, range(17))]
    write(tmp_path, probs, labels, ids=ids)
    got_ids, got_labels, _, got = read_predictions(tmp_path)
    assert got_ids == ids
    np.testing.assert_array_equal(got_labels, labels)
    np.testing.assert_array_equal(got, probs)
    header = (tmp_path / "predictions.csv").read_text(encoding="utf-8").splitlines()[0]
    assert header == "id,label,prediction," + ",".join(EMOTIONS)


def test_json_is_complete_sorted_and_stable(tmp_path):
    probs, labels, images = predictions()
    returned = write(tmp_path / "a", probs, labels, images)
    write(tmp_path / "b", probs, labels, images)
    text = (tmp_path / "a" / "report.json").read_text()
    result = json.loads(text)
    assert set(REQUIRED) <= result.keys()
    assert list(result) == sorted(result)
    assert result == returned
    assert result["config"] == FACTS["config"] and result["checkpoint"] == FACTS["checkpoint"]
    for name in ("report.json", "report.md", "predictions.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_page_links_pictures_that_are_there(tmp_path):
    probs, labels, images = predictions()
    result = write(tmp_path, probs, labels, images)
    page = (tmp_path / "report.md").read_text()
    links = re.findall(r"!\[.+\]\((.+)\)", page)
    assert sorted(links) == sorted(path.name for path in tmp_path.glob("*.png"))
    assert len(links) == 4
    assert "400 images of `test`, two views of each averaged" in page
    assert "accuracy 0.7000 on `validation` at step 1,200" in page
    for link in links:
        with Image.open(tmp_path / link) as picture:
            assert min(picture.size) > 300
            low, high = picture.convert("L").getextrema()
            assert high - low > 100
    assert f"{100 * result['accuracy']:.2f} %" in page.splitlines()[0]
    for name in EMOTIONS:
        row = result["per_class"][name]
        assert f"| {name} | {row['precision']:.3f} | {row['recall']:.3f} |" in page


def test_most_confident_mistakes_come_first(tmp_path):
    probs = np.full((4, 7), 0.05)
    for row, (predicted, confidence) in enumerate([(0, 0.7), (1, 0.6), (2, 0.7), (3, 0.65)]):
        probs[row] = (1 - confidence) / 6
        probs[row, predicted] = confidence
    result = write(tmp_path, probs, np.array([0, 2, 3, 4]))
    assert result["most_confident_mistakes"] == ["image 2", "image 3", "image 1"]


def test_a_perfect_model_has_no_sheet_of_mistakes(tmp_path):
    probs, labels, images = predictions(50)
    write(tmp_path, probs, labels, images)
    assert (tmp_path / "mistakes.png").exists()
    write(tmp_path, np.eye(7)[labels], labels, images)
    assert not (tmp_path / "mistakes.png").exists()
    assert "mistakes" not in (tmp_path / "report.md").read_text()


def test_colour_faces_and_a_single_mistake(tmp_path):
    labels = np.arange(7)
    probs = np.eye(7)[[1, 1, 2, 3, 4, 5, 6]]
    images = np.random.default_rng(0).integers(0, 256, (7, 20, 30, 3), np.uint8)
    result = write(tmp_path, probs, labels, images)
    assert result["most_confident_mistakes"] == ["image 0"]
    assert (tmp_path / "mistakes.png").exists()


def test_copies_are_resampled_together(tmp_path):
    probs, labels, _ = predictions(60)
    copies = np.repeat(np.arange(60), 3)
    result = write(tmp_path / "a", probs[copies], labels[copies], groups=copies)
    expected = statistics.bootstrap_interval(probs[copies], labels[copies], copies)
    assert result["interval_95"]["unit"] == "groups of identical images"
    assert result["interval_95"]["accuracy"] == list(expected["accuracy"])
    alone = write(tmp_path / "b", probs[copies], labels[copies])
    assert alone["interval_95"]["unit"] == "images"
    assert np.diff(alone["interval_95"]["accuracy"]) < np.diff(result["interval_95"]["accuracy"])


@pytest.mark.parametrize(
    ("changes", "selected_here", "note"),
    [
        ({"split": "test"}, False, "selected on `validation`; no score on `test` had a part"),
        ({"split": "validation"}, True, "Selected on this split.*optimistic"),
        ({"split": "train"}, False, "trained on this split"),
        (
            {"split": "validation", "trained_data_hash": "b" * 64},
            False,
            "not those of the training",
        ),
        ({"selection": None}, False, "No score selected"),
        # Another hash of the whole for a split that was added.
        ({"split": "validation", **data_of("t", "v", "w")}, True, "Selected on this split.*optimistic"),
        ({"split": "train", **data_of("t", "v", "w")}, False, "trained on this split"),
        ({"split": "test", **data_of("t", "v", "w")}, False, "no score on `test` had a part"),
        # Known splits under other names.
        ({"split": "test", **data_of("x", "y", "v")}, True, "Selected on this split.*optimistic"),
        ({"split": "test", **data_of("x", "y", "t")}, False, "trained on this split"),
        ({"split": "validation", **data_of("t", "y", "w")}, False, "not those of the training"),
    ],
)
def test_what_selected_the_checkpoint(tmp_path, changes, selected_here, note):
    probs, labels, _ = predictions(30)
    result = write(tmp_path, probs, labels, facts=FACTS | changes)
    assert result["selected_on_this_split"] is selected_here
    assert re.search(note, result["note"])
    assert result["note"] in (tmp_path / "report.md").read_text()


def test_facts_that_are_missing_are_said_to_be(tmp_path):
    probs, labels, _ = predictions(30)
    facts = {"split": "test", "tta": "none", "checkpoint": "x.safetensors"}
    result = write(tmp_path, probs, labels, facts=facts)
    assert result["config"] is None and result["data_hash"] is None
    assert "| seed | not recorded |" in (tmp_path / "report.md").read_text()


def test_bad_input_leaves_nothing(tmp_path):
    probs, labels, _ = predictions(10)
    with pytest.raises(ValueError, match="the split is empty"):
        write(tmp_path / "empty", probs[:0], labels[:0])
    with pytest.raises(ValueError, match="no probability distribution"):
        write(tmp_path / "sums", 2 * probs, labels)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write(tmp_path / "file", probs, labels)


def test_a_report_that_fails_halfway_is_no_report(tmp_path, monkeypatch):
    probs, labels, images = predictions(30)
    write(tmp_path, probs, labels, images)
    monkeypatch.setattr(report.plots, "plot_per_class", lambda *a: (_ for _ in ()).throw(OSError()))
    with pytest.raises(OSError):
        write(tmp_path, probs, labels, images)
    assert not (tmp_path / "report.json").exists()
