"""Tests fer-jax compare with a run and with a CSV file of another framework, and its errors."""

import csv
import json

import numpy as np
import pytest
from helpers import random_case, script

from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation.report import report


@pytest.fixture
def models(tiny_data, tmp_path):
    """Returns a report and a CSV file on the validation split of 28 faces."""
    faces = read.load(tiny_data, "validation")
    ours, theirs = random_case(0, 28)[0], random_case(1, 28)[0]
    metadata = {"emotions": list(EMOTIONS), "split": "validation", "tta": "none", "checkpoint": "w"}
    report.write_report(tmp_path / "ours", ours, faces.labels, faces.ids, metadata=metadata)
    with open(tmp_path / "keras.csv", "w", newline="") as file:
        rows = ([name, *row] for name, row in zip(faces.ids, theirs.tolist(), strict=True))
        csv.writer(file).writerows([["id", *EMOTIONS], *rows])
    return tmp_path / "ours", tmp_path / "keras.csv", np.mean(theirs.argmax(1) == faces.labels)


def test_a_report_and_a_plain_file(models, tiny_data, tmp_path, capsys):
    ours, plain, accuracy = models
    out, compare = tmp_path / "out", script("compare")
    words = ["--data", str(tiny_data), "--out", str(out)]
    assert compare.main([str(ours), str(plain), *words]) == 0
    found = json.loads((out / "compare.json").read_text())
    assert [row["name"] for row in found["models"]] == ["ours", "keras"]
    assert found["models"][1]["accuracy"] == pytest.approx(accuracy)
    assert found["copies"] is not None and found["models"][1]["without_identical"]["num_examples"] <= 28
    assert len(found["pairs"]) == 1 and (out / "accuracy.png").is_file()
    printed = capsys.readouterr().out
    assert "28 images of `validation`" in printed and str(out / "compare.md") in printed
    assert compare.main([str(plain), *words, "--split", "test"]) == 2
    assert "row 2: the split has no image 'PublicTest/" in capsys.readouterr().err
