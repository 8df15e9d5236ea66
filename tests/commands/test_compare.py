"""fer-jax compare on a run and on a plain file of another framework, and its complaints."""

import csv
import json

import numpy as np
import pytest
from helpers import random_case, script

from fer_jax.data.dataset import builder
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation.report import report


@pytest.fixture(scope="module")
def compare():
    return script("compare")


@pytest.fixture
def models(tiny_data, tmp_path):
    """A report and a plain file on the validation split of 28 faces."""
    faces = builder.load(tiny_data, "validation")
    ours, theirs = random_case(0, 28)[0], random_case(1, 28)[0]
    facts = {"emotions": list(EMOTIONS), "split": "validation", "tta": "none", "checkpoint": "w"}
    report.write_report(tmp_path / "ours", ours, faces.labels, faces.ids, facts=facts)
    with open(tmp_path / "keras.csv", "w", newline="") as file:
        rows = ([name, *row] for name, row in zip(faces.ids, theirs.tolist(), strict=True))
        csv.writer(file).writerows([["id", *EMOTIONS], *rows])
    return tmp_path / "ours", tmp_path / "keras.csv", faces.labels, theirs


def test_a_report_and_a_plain_file(compare, models, tiny_data, tmp_path, capsys):
    ours, plain, labels, probs = models
    out = tmp_path / "out"
    assert compare.main([str(ours), str(plain), "--data", str(tiny_data), "--out", str(out)]) == 0
    found = json.loads((out / "compare.json").read_text())
    assert [row["name"] for row in found["models"]] == ["ours", "keras"]
    assert found["models"][1]["accuracy"] == pytest.approx(np.mean(probs.argmax(1) == labels))
    assert found["copies"] is not None and found["models"][1]["without_identical"]["num_examples"] <= 28
    assert len(found["pairs"]) == 1 and (out / "accuracy.png").is_file()
    printed = capsys.readouterr().out
    assert "28 images of `validation`" in printed and str(out / "compare.md") in printed


def test_complaints(compare, models, tiny_data, tmp_path, capsys):
    ours, plain, *_ = models

    def complaint(*words):
        assert compare.main([*map(str, words), "--out", str(tmp_path / "out")]) == 2
        return capsys.readouterr().err

    assert f"{plain} has no labels: give it a column label" in complaint(ours, plain)
    assert "no test split" not in complaint(ours, plain)
    assert "row 2: the dataset has no image 'PublicTest/" in complaint(
        plain, "--data", tiny_data, "--split", "test"
    )
    assert "there are no predictions at" in complaint(tmp_path / "nothing")
    plain.write_text(plain.read_text().replace("happy", "glee"))
    assert "lacks the columns happy" in complaint(plain)
