"""Tests the report: all metrics follow from the predictions file, and all linked files exist."""

import csv
import json
import re

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from helpers import random_case, report_metadata, rows_of
from markdown_it import MarkdownIt
from PIL import Image
from sklearn import metrics

from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import leakage_policy, predictions_file
from fer_jax.evaluation.metrics import bootstrap, calibration
from fer_jax.evaluation.report import report

METADATA = report_metadata(split="test", tta="flip")


def predictions(count=400):
    images = np.random.default_rng(0).integers(0, 256, (count, 12, 12, 1), np.uint8)
    return *random_case(0, count), images


def write(out, probs, labels, images=None, *, ids=None, groups=None, copies=None, **metadata):
    """Writes a report; returns its content and its page."""
    ids = [f"image {i}" for i in range(len(labels))] if ids is None else ids
    rest = {"images": images, "groups": groups, "copies": copies}
    result = report.write_report(out, probs, labels, ids, metadata=METADATA | metadata, **rest)
    return result, (out / "report.md").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Returns a report on 400 images: its folder, its content, and the predictions in its file."""
    out = tmp_path_factory.mktemp("report")
    result, _ = write(out, *predictions())
    rows = rows_of(out / "predictions.csv")
    labels, predicted = (np.array([int(row[key]) for row in rows]) for key in ("label", "prediction"))
    return out, result, labels, predicted, np.array([[float(row[name]) for name in EMOTIONS] for row in rows])


def test_every_figure_is_scikit_learns_on_the_predictions_file(whole):
    _, result, y, predicted, p = whole
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
        "ece": calibration.ece(p, y),
    }
    assert {name: result[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    table = metrics.classification_report(y, predicted, target_names=EMOTIONS, output_dict=True)
    for name in EMOTIONS:
        theirs = {"f1" if k == "f1-score" else k: v for k, v in table[name].items()}
        assert {key: result["per_class"][name][key] for key in theirs} == pytest.approx(theirs, abs=1e-12)
    matrix = metrics.confusion_matrix(y, predicted)
    np.testing.assert_array_equal(result["confusion_matrix"], matrix)
    # The confused pairs are the largest cells.
    off = matrix - np.diag(matrix.diagonal())
    pairs = result["confused_pairs"]
    assert [pair["count"] for pair in pairs] == sorted(off[off > 0].tolist(), reverse=True)[: len(pairs)]
    for pair in pairs:
        row, column = EMOTIONS.index(pair["label"]), EMOTIONS.index(pair["prediction"])
        assert matrix[row, column] == pair["count"]
        assert pair["share_of_label"] == matrix[row, column] / (y == row).sum()


def test_classes_have_the_names_in_the_metadata(tmp_path):
    names = [*EMOTIONS, "contempt"]
    labels = np.arange(16) % 8
    probs = np.full((16, 8), 0.02)
    predicted = np.where(np.arange(16) == 15, 0, labels)  # the last one is wrong
    probs[np.arange(16), predicted] = 0.86
    images = np.random.default_rng(0).integers(0, 256, (16, 12, 12, 1), np.uint8)
    result, page = write(tmp_path, probs, labels, images, emotions=names)
    assert result["emotions"] == list(result["per_class"]) == names
    assert result["per_class"]["contempt"]["recall"] == 0.5
    header = (tmp_path / "predictions.csv").read_text().splitlines()[0]
    assert header == "id,label,prediction," + ",".join(names) + ",group,copy"
    assert "prediction (0 to 7: angry" in page


def test_the_file_holds_every_image_once_and_in_full(tmp_path):
    probs, labels, _ = predictions(20)
    ids = ["a,b/1.png", 'quoted "name".jpg', "schön.png", "=1+1", "-x.png", "@a", "+b", "-7"]
    write(tmp_path, probs, labels, ids=[*ids, *map(str, range(12))])
    found = predictions_file.read(tmp_path / "predictions.csv")
    assert found.ids == [*ids, *map(str, range(12))]
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.probs, probs)
    cells = [row[0] for row in csv.reader((tmp_path / "predictions.csv").read_text("utf-8").splitlines())]
    assert cells[4:9] == ["'=1+1", "'-x.png", "'@a", "'+b", "-7"]


def test_what_users_and_files_name_does_nothing_on_the_page(tmp_path):
    """No field of the metadata can add HTML, a link, an image, or a table cell."""
    probs, labels, _ = predictions(30)
    bad = "a|b `<img src=x>` <script>f()</script> [x](javascript:f) ![y](//z)\n\n# h"
    distill = {"teachers": [bad, 3], "weight": 0.5, "temperature": 2.0}
    calibrated = {"temperature": 2.0, "split": bad, "split_hash": "other"}
    metadata = {"checkpoint": bad, "version": bad, "tta": bad, "seed": bad, "annotations": [bad]}
    metadata |= {"model": {"name": bad, "kwargs": {bad: bad}}, "data": {"name": bad, "splits": {}}}
    metadata |= {
        "selection": {"split": bad, "metric": bad, "value": 0.5, "step": 3},
        "calibration": calibrated,
    }
    latency = {"milliseconds": 1.0, "hardware": bad, "quartiles_milliseconds": [1.0, 2.0]}
    metadata |= {"config": {"distill": distill}, "cost": {"flops": 10, "latency": latency}}
    _, page = write(tmp_path, probs, labels, emotions=[bad, *EMOTIONS[1:]], split=bad, **metadata)
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(page)
    assert [token.type for token in tokens].count("heading_open") == page.count("\n## ") + 1
    inline = [child for token in tokens if token.type == "inline" for child in token.children]
    assert not {"html_block", "html_inline", "link_open"} & {token.type for token in tokens + inline}
    pictures = [child.attrs["src"] for child in inline if child.type == "image"]
    assert pictures and all((tmp_path / name).is_file() for name in pictures)
    columns = [line.count("|") - line.count("\\|") for line in page.splitlines() if line.startswith("|")]
    assert columns and set(columns) <= {3, 4, 5, 7}  # the tables have 2, 3, 4, or 6 columns
    assert page.count("script") > 9


def test_json_is_complete_sorted_and_stable(tmp_path):
    for name in ("a", "b"):
        returned, _ = write(tmp_path / name, *predictions(40))
    result = json.loads((tmp_path / "a" / "report.json").read_text())
    assert list(result) == sorted(result) and result == returned
    assert {"accuracy", "macro_f1", "num_examples", "split", "data_hash"} <= result.keys()
    assert result["config"] == METADATA["config"] and result["checkpoint"] == METADATA["checkpoint"]
    for name in ("report.json", "report.md", "predictions.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.drawn
def test_page_links_pictures_that_are_there(tmp_path):
    result, page = write(tmp_path, *predictions())
    links = re.findall(r"!\[.+\]\((.+)\)", page)
    assert sorted(links) == sorted(path.name for path in tmp_path.glob("*.png"))
    assert len(links) == 7 and "suspects.png" in links  # random pixels have no duplicates
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert len(set(headings)) == len(headings)
    assert "400 images of `test` with labels `given`, two views of each averaged" in page
    assert "accuracy 0.7000 on `validation` at step 1,200" in page
    for link in links:
        with Image.open(tmp_path / link) as picture:
            assert min(picture.size) > 300
            low, high = picture.convert("L").getextrema()
            assert high - low > 100
    assert f"{100 * result['accuracy']:.2f} %" in page.splitlines()[0]
    for name in EMOTIONS:
        row = result["per_class"][name]
        assert f"| {name} | {row['precision']:.3f} | {row['recall']:.3f} (" in page


def test_the_most_confident_mistakes_come_first_unless_there_are_none(tmp_path):
    labels = np.array([0, 2, 3, 4])
    probs = np.full((4, 7), 0.05)
    for row, (predicted, confidence) in enumerate([(0, 0.7), (1, 0.6), (2, 0.7), (3, 0.65)]):
        probs[row] = (1 - confidence) / 6
        probs[row, predicted] = confidence
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), np.uint8)
    result, page = write(tmp_path, probs, labels, images)
    assert result["most_confident_mistakes"] == ["image 2", "image 3", "image 1"]
    assert (tmp_path / "mistakes.png").exists() and "mistakes.png" in page
    _, page = write(tmp_path, np.eye(7)[labels], labels, images)
    assert not (tmp_path / "mistakes.png").exists() and "mistakes.png" not in page


def test_copies_are_resampled_together(tmp_path):
    probs, labels, _ = predictions(60)
    copies = np.repeat(np.arange(60), 3)
    result, _ = write(tmp_path / "a", probs[copies], labels[copies], groups=copies)
    drawn = bootstrap.resample(probs[copies], labels[copies], copies)
    assert result["bootstrap"]["unit"] == "groups of identical images"
    assert set(result["interval_95"]) == {
        "accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "loss", "brier", "ece", "adaptive_ece",
    }  # fmt: skip
    for name, pair in result["interval_95"].items():
        expected = np.quantile(drawn[name], [0.025, 0.975])
        if name.endswith("ece"):  # the basic bootstrap, between 0 and the figure at least
            expected = 2 * result[name] - expected[::-1]
            expected = [max(0, expected[0]), max(result[name], expected[1])]
        assert pair == pytest.approx(list(expected))
    for i, name in enumerate(EMOTIONS):
        of_class = result["per_class"][name]["interval_95"]["recall"]
        assert of_class == pytest.approx(np.nanquantile(drawn["recall"][:, i], [0.025, 0.975]).tolist())
    alone, _ = write(tmp_path / "b", probs[copies], labels[copies])
    assert alone["bootstrap"]["unit"] == "images"
    assert np.diff(alone["interval_95"]["accuracy"]) < np.diff(result["interval_95"]["accuracy"])


def test_without_copies_the_figures_are_those_of_the_rest(tmp_path):
    probs, labels, _ = predictions(300)
    copies = np.repeat([0, 1, 2], [200, 60, 40]).astype(np.int8)
    result, page = write(tmp_path, probs, labels, copies=copies, groups=np.arange(300))
    right = probs.argmax(axis=1) == labels
    parts = result["leak_free"]
    assert parts["without_identical"]["accuracy"] == right[:260].mean()
    assert parts["without_near"]["accuracy"] == right[:200].mean()
    assert (parts["without_identical"]["removed"], parts["without_near"]["removed"]) == (40, 100)
    assert parts["without_near"]["macro_f1"] == pytest.approx(
        metrics.f1_score(labels[:200], probs[:200].argmax(axis=1), average="macro")
    )
    low, high = parts["without_near"]["interval_95"]["accuracy"]
    assert low < right[:200].mean() < high
    assert result["headline"] == "without_near" and result["copies"] == {"near": 60, "identical": 40}
    assert f"**Headline: {100 * right[:200].mean():.2f} % accuracy" in page
    found = predictions_file.read(tmp_path / "predictions.csv")
    assert found.copies.tolist() == copies.tolist() and found.groups.tolist() == list(range(300))


def test_a_split_of_copies_only(tmp_path):
    probs, labels, _ = predictions(30)
    result, page = write(tmp_path, probs, labels, copies=np.full(30, 2, np.int8))
    assert result["leak_free"] == {"without_near": None, "without_identical": None}
    assert result["headline"] is None and "No headline" in page
    assert "| without identical duplicates | all | 0 |  |  |  |" in page


def test_the_page_refuses_what_the_policy_refuses(tmp_path):
    probs, labels, _ = predictions(30)
    copies = np.zeros(30, np.int8)
    result, page = write(tmp_path, probs, labels, copies=copies, split="validation")
    metadata = METADATA | {"split": "validation", "trained_data": METADATA["data"]}
    expected = leakage_policy.assess(metadata, copies)
    assert {key: result[key] for key in expected} == expected
    assert f"**{expected['note']}**" in page and "**Headline" not in page


def test_calibrated_figures(tmp_path):
    probs, labels, _ = predictions(400)
    metadata = METADATA | {"calibration": {"temperature": 2.0, "split": "validation", "split_hash": "v"}}
    result, page = write(tmp_path, probs, labels, calibration=metadata["calibration"])
    scaled = np.sqrt(probs) / np.sqrt(probs).sum(axis=1, keepdims=True)
    found = result["calibrated"]
    assert found["loss"] == pytest.approx(metrics.log_loss(labels, scaled))
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(labels, scaled))
    assert found["cross_fitted"] is False and found["temperature"] == 2.0
    assert found["interval_95"]["loss"][0] < found["loss"] < found["interval_95"]["loss"][1]
    assert "fitted on `validation`" in page
    # The split of the fit, whichever split selected the weights.
    here = report.calibrated(probs, labels, None, metadata | {"split": "validation", "selection": None})
    assert here["cross_fitted"] is True and here["loss"] != found["loss"]
    others = {"split": "validation", "data": {"name": "others", "splits": {"validation": {"hash": "x"}}}}
    assert report.calibrated(probs, labels, None, metadata | others)["cross_fitted"] is False
    assert report.calibrated(probs, labels, None, metadata | {"calibration": None}) is None


def test_duplicates_that_disagree_are_listed_and_shown(tmp_path):
    probs, labels, images = predictions(20)
    images[11], images[12], images[13] = images[1], images[2], images[3]
    labels[[1, 2, 3, 11, 12, 13]] = [0, 0, 0, 0, 1, 0]
    probs[[1, 11]] = np.full(7, 0.05) + 0.65 * np.eye(7)[[3, 4]]
    probs[[2, 12, 3, 13]] = np.full(7, 0.05) + 0.65 * np.eye(7)[[3, 3, 5, 5]]
    result, page = write(tmp_path, probs, labels, images)
    assert result["twins"] == {"pairs": 3, "predictions_differ": 1, "labels_differ": 1}
    pairs = {(row["id_1"], row["id_2"]) for row in rows_of(tmp_path / "twins.csv")}
    assert pairs == {("image 1", "image 11"), ("image 2", "image 12")}
    assert (tmp_path / "twins.png").exists() and "twins.png" in page
    probs[11] = probs[1]
    write(tmp_path, probs, labels, images)
    assert not (tmp_path / "twins.png").exists()


def test_missing_metadata_is_reported(tmp_path):
    probs, labels, _ = predictions(30)
    metadata = {"split": "test", "tta": "none", "checkpoint": "x.safetensors", "emotions": list(EMOTIONS)}
    result = report.write_report(tmp_path, probs, labels, list(map(str, range(30))), metadata=metadata)
    assert result["config"] is None and result["data_hash"] is None
    assert "| seed | not recorded |" in (tmp_path / "report.md").read_text()


def test_bad_input_leaves_nothing(tmp_path):
    probs, labels, _ = predictions(10)
    with pytest.raises(ValueError, match="the split is empty"):
        write(tmp_path / "empty", probs[:0], labels[:0])
    with pytest.raises(ValueError, match="is not a probability distribution"):
        write(tmp_path / "sums", 2 * probs, labels)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        write(tmp_path / "file", probs, labels)


def test_a_report_that_fails_halfway_is_no_report(tmp_path, monkeypatch):
    case = predictions(30)
    write(tmp_path, *case)
    monkeypatch.setattr(report.plots, "plot_risk_coverage", lambda *a: (_ for _ in ()).throw(OSError()))
    with pytest.raises(OSError):
        write(tmp_path, *case)
    assert not (tmp_path / "report.json").exists()


def test_suspected_labels_are_confident_learnings(tmp_path):
    """They are the planted errors of a class, or none if the model has learned the labels."""
    probs, labels, images = predictions(200)
    wrong = np.flatnonzero(labels == 3)[:9]
    probs[wrong] = 0.01 + 0.93 * np.eye(7)[1]
    result, page = write(tmp_path, probs, labels, images)
    found = find_label_issues(labels, probs, return_indices_ranked_by="self_confidence", n_jobs=1)
    assert set(wrong) <= set(found)
    assert result["suspects"] == {name: int((labels[found] == i).sum()) for i, name in enumerate(EMOTIONS)}
    assert {row["id"] for row in rows_of(tmp_path / "suspects.csv")} == {f"image {i}" for i in found}
    share = f"{100 * result['suspects']['happy'] / (labels == 3).sum():.1f} %"
    assert f"| happy | {result['suspects']['happy']} | {(labels == 3).sum()} | {share} |" in page
    result, page = write(tmp_path, probs, labels, images, split="train")
    assert result["suspects"] is None and "suspects" not in page and not list(tmp_path.glob("suspects*"))
