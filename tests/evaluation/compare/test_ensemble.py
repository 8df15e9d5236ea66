"""Tests the selection of ensembles by hand, and fer-jax ensemble on prediction files."""

import json
import shutil

import numpy as np
import pytest
from helpers import plain_trainings, script

from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.compare import ensemble


def sure(*wanted):
    """Returns probabilities [N, 7] from N pairs (class, probability); the rest is on class 6."""
    probs = np.zeros((len(wanted), 7))
    for row, (place, share) in zip(probs, wanted, strict=True):
        row[6] = 1 - share
        row[place] += share
    return probs


LABELS = np.array([0, 1, 2, 3])
GOOD = sure((0, 0.9), (1, 0.9), (2, 0.9), (5, 0.6))  # wrong on the last, with low confidence
TWIN = sure((0, 0.9), (1, 0.9), (2, 0.8), (5, 0.6))  # as accurate, less likely
OTHER = sure((5, 0.6), (5, 0.6), (5, 0.6), (3, 1.0))  # right on the last, wrong elsewhere


def test_takes_the_best_and_then_what_helps_it():
    choice = ensemble.choose([TWIN, OTHER, GOOD], LABELS, most=3)
    assert choice.order == [2, 1, 0]
    assert choice.accuracies == [0.75, 1.0, 0.75]
    assert choice.best == 2
    assert ensemble.choose([TWIN, OTHER, GOOD], LABELS, most=1).order == [2]


def test_figures_are_those_of_the_mean_and_members_are_marked(tmp_path):
    found = ensemble.judge([TWIN, OTHER, GOOD], LABELS, np.arange(4), most=3)
    assert found["members"] == [2, 1]
    np.testing.assert_allclose(found["probs"], (GOOD + OTHER) / 2)
    assert found["figures"]["accuracy"] == 1.0
    expected = -np.log([0.45, 0.45, 0.45, 0.5]).mean()
    assert found["figures"]["loss"] == pytest.approx(expected)
    assert found["best_single"] == {"place": 0, "accuracy": 0.75}
    (axis,) = ensemble.plot(found, 4, "validation", tmp_path / "e.png").axes
    (included,) = [line for line in axis.lines if line.get_label() == "included"]
    np.testing.assert_allclose(included.get_xydata(), [(1, 75), (2, 100)])
    assert axis.get_title(loc="left") == "Accuracy of the ensemble on 4 images of validation"
    every = ensemble.judge([TWIN, OTHER, GOOD], LABELS, np.arange(4), most=2, take_all=True)
    np.testing.assert_allclose(every["probs"], (TWIN + OTHER + GOOD) / 3)
    assert every["members"] == [0, 1, 2] and every["elsewhere"] is None


def test_choosing_among_networks_that_guess_is_worth_nothing_elsewhere():
    """The best of 30 random guesses looks good by chance, but not on other images."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 400)
    probs = [rng.dirichlet(np.ones(7), 400) for _ in range(30)]
    found = ensemble.judge(probs, labels, np.arange(400), most=3)
    elsewhere = found["elsewhere"]
    assert found["figures"]["accuracy"] > 0.19
    assert elsewhere["ensemble"] == pytest.approx(1 / 7, abs=0.03)
    assert elsewhere["gain"] == pytest.approx(elsewhere["ensemble"] - elsewhere["single"])
    low, high = elsewhere["gain_95"]
    assert low < 0 < high


@pytest.fixture
def files(tmp_path):
    paths = []
    for name, probs in {"twin": TWIN, "other": OTHER, "good": GOOD}.items():
        paths.append(tmp_path / f"{name}.csv")
        of_images = ([f"face_{i}" for i in range(4)], probs, LABELS, list(EMOTIONS), np.arange(4))
        predictions_file.write(paths[-1], predictions_file.Predictions(*of_images))
    return paths


def test_the_command_writes_page_picture_and_predictions_beside_its_inputs(files, tmp_path, capsys):
    assert script("ensemble").main([*map(str, files), f"--out={tmp_path}"]) == 0
    found = predictions_file.read(tmp_path / "predictions.csv")
    np.testing.assert_allclose(found.probs, (GOOD + OTHER) / 2)
    assert found.ids == ["face_0", "face_1", "face_2", "face_3"]
    result = json.loads((tmp_path / "ensemble.json").read_text())
    assert [result["networks"][place] for place in result["members"]] == ["good", "other"]
    page = (tmp_path / "ensemble.md").read_text()
    assert page in capsys.readouterr().out
    assert "| 2 | other | 25.00 | 100.00 | yes |" in page and "| 3 | twin | 75.00 | 75.00 |  |" in page
    assert (tmp_path / "ensemble.png").stat().st_size and len(predictions_file.read(files[0]).ids) == 4


def test_an_ensemble_of_runs_has_a_report_that_knows_its_ancestors(tiny_run, tiny_data, tmp_path, capsys):
    """The ensemble of two copies of a run has its metrics, and its selection as an ancestor."""
    main = script("ensemble").main
    first, again, out = tmp_path / "first", tmp_path / "again", tmp_path / "out"
    shutil.copytree(tiny_run, first)
    with plain_trainings():
        flags = [f"--workdir={first}", f"--data={tiny_data}", f"--out={first / 'report'}"]
        assert script("evaluate").main(flags) == 0
        shutil.copytree(first, again)
        assert main([str(first), str(again), "--all", f"--out={out}"]) == 0
    report, single = (json.loads((folder / "report.json").read_text()) for folder in (out, first / "report"))
    assert report["accuracy"] == single["accuracy"] and report["parameters"] == 2 * single["parameters"]
    assert report["model"]["name"] == "ensemble of 2"
    assert report["selected_on_this_split"] and report["headline"] is None
    assert "| distilled from | not recorded |" in (out / "report.md").read_text()
    assert f"('{first}', '{again}')" in (out / "ensemble.md").read_text()

    # Overwrites its own folder, but not that of a network's report.
    (out / "ensemble.json").unlink()  # as after an interruption
    assert main([str(first), str(again), "--all", f"--out={out}"]) == 0
    before = (first / "report" / "report.json").read_text()
    for folder in (again, first / "report"):
        assert main([str(again), str(out), f"--out={folder}"]) == 2
        assert f"--out {folder} contains a network's files" in capsys.readouterr().err
    assert (first / "report" / "report.json").read_text() == before
    assert not (again / "ensemble.md").exists()


def test_one_network_is_taken_alone_or_refused(files, tmp_path, capsys):
    assert script("ensemble").main([str(files[2]), str(files[0]), f"--out={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr().out
    assert "1 of 2 networks on one split" in printed and "No other network improves on it" in printed
    with pytest.raises(SystemExit, match="2"):
        script("ensemble").main([str(files[0]), f"--out={tmp_path / 'out'}"])
    assert "at least two networks" in capsys.readouterr().err
