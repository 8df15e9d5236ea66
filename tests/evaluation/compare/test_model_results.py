"""Tests loading results to compare: files of any framework are aligned, or rejected."""

import csv
import json
import pathlib

import numpy as np
import pytest
from helpers import random_case

from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.compare import model_results

FACES = [f"face {i}" for i in range(40)]
LABELS = random_case(0, 40)[1]
OURS, THEIRS = (np.random.default_rng(seed).dirichlet(np.ones(7), 40) for seed in (1, 2))
EIGHT = np.column_stack([0.6 * THEIRS, np.full(40, 0.4)])
CONTEMPT = [*EMOTIONS, "contempt"]
DATASET = model_results.Split(FACES, LABELS, np.arange(40), lambda: np.zeros(40, np.int8))


@pytest.fixture
def save(tmp_path):
    """Writes predictions, with a report's metadata or as a plain CSV; returns their path."""

    def write(name, probs, labels=LABELS, ids=FACES, names=EMOTIONS, metadata=None):
        table = predictions_file.Predictions(ids, probs, labels, list(names))
        if metadata is None:
            predictions_file.write(tmp_path / f"{name}.csv", table)
            return tmp_path / f"{name}.csv"
        folder = tmp_path / name / "report"
        folder.mkdir(parents=True)
        predictions_file.write(folder / "predictions.csv", table)
        (folder / "report.json").write_text(json.dumps(metadata))
        return tmp_path / name

    return write


def test_a_run_and_a_plain_file_in_another_order_of_rows_and_columns(save, tmp_path):
    ours = save("ours", OURS, metadata={"split": "validation"})
    (ours / "summary.json").write_text(json.dumps({"seconds": 7020}))
    rows, columns = np.random.default_rng(0).permutation(40), [6, 2, 1, 0, 5, 4, 3]
    with open(tmp_path / "keras.csv", "w", newline="") as file:
        table = ([FACES[i], *THEIRS[i, columns]] for i in rows)
        csv.writer(file).writerows([["id", *(EMOTIONS[i] for i in columns)], *table])
    first, second = model_results.load([ours, tmp_path / "keras.csv"], DATASET)
    assert (first.name, second.name) == ("ours", "keras")
    assert first.metadata["split"] == "validation" and first.metadata["run"]["seconds"] == 7020
    np.testing.assert_array_equal(second.predictions.probs, THEIRS)
    np.testing.assert_array_equal(second.predictions.labels, LABELS)
    assert second.predictions.copies.tolist() == [0] * 40


def test_contempt_is_ruled_out_where_not_all_know_it(save):
    paths = [save("seven", OURS), save("eight", EIGHT, names=CONTEMPT)]
    found = model_results.load(paths)
    np.testing.assert_allclose(found[1].predictions.probs, THEIRS, atol=1e-12)
    assert found[1].notes == ["contempt dropped, other probabilities renormalized"]
    assert model_results.load(paths[1:])[0].predictions.probs.shape == (40, 8)
    # But it must not be a label.
    eight = save("labeled", EIGHT, np.append(LABELS[:39], 7), names=CONTEMPT)
    with pytest.raises(ValueError, match=r"seven.csv, row 41: face 39 has the label"):
        model_results.load([eight, paths[0]])


def test_other_images(save):
    theirs = save("theirs", THEIRS, ids=[*FACES[:38], "x", "y"])
    with pytest.raises(ValueError) as error:
        model_results.load([save("ours", OURS), theirs])
    message = str(error.value)
    assert "2 images (face 38, face 39) are only in the latter, 2 images (x, y) only in the former" in message
    assert "theirs.csv" in message and "on the same split" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda ids, labels: ids.__setitem__(3, "nobody"), "row 5: the split has no image 'nobody'"),
        (lambda ids, labels: ids.pop(), "lacks 1 images (face 39) of the split"),
        (lambda ids, labels: labels.__setitem__(2, (labels[2] + 1) % 7), "row 4: face 2 has the label"),
    ],
)
def test_a_file_that_does_not_fit_the_dataset(save, change, expected):
    ids, wrong = FACES.copy(), LABELS.copy()
    change(ids, wrong)
    path = save("theirs", OURS[: len(ids)], wrong[: len(ids)], ids=ids)
    with pytest.raises(ValueError) as error:
        model_results.load([path], DATASET)
    assert expected in str(error.value) and str(path) in str(error.value)


def test_nothing_there_twice_unlabeled_and_damaged(save, tmp_path):
    run = save("ours", OURS, metadata={})
    (tmp_path / "best.safetensors").touch()
    theirs = save("theirs", THEIRS, None)
    for paths, kind, message in (
        ([theirs], ValueError, "theirs.csv has no labels: add a column label, .*--data"),
        (
            [tmp_path / "no"],
            FileNotFoundError,
            "no predictions at .*no: expected the directory of a",
        ),
        ([run, tmp_path / "best.safetensors"], ValueError, "is a weights file: run fer-jax evaluate on it"),
        ([run, run / "report"], ValueError, "is given twice"),
    ):
        with pytest.raises(kind, match=message):
            model_results.load(paths)
    (run / "report" / "report.json").write_text("{")
    with pytest.raises(ValueError, match=r"report.json is damaged \(Expecting"):
        model_results.load([run])


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (["cnn/report/predictions.csv", "k.csv"], ["cnn", "k"]),
        (["a/cnn/report/predictions.csv", "b/cnn/report/predictions.csv"], ["a/cnn", "b/cnn"]),
        (["b/cnn/report/predictions.csv", "r/cnn/predictions.csv.gz", "b/k.csv"], ["b/cnn", "r/cnn", "b/k"]),
        (["cnn/seed_0/report/predictions.csv", "k.csv"], ["cnn/seed_0", "k"]),
        # Ambiguous names are replaced by full paths.
        (["out/k/predictions.csv", "out/k.csv", "out/cnn/predictions.csv"], [None, None, "out/cnn"]),
    ],
)
def test_names_are_as_long_as_they_must_be(ends, expected):
    found = model_results.names([pathlib.Path("/", end) for end in ends])
    assert found == [name or f"/{end}" for name, end in zip(expected, ends, strict=True)]
