"""Tests fer-jax label-errors on small data, with trainings in this process."""

import contextlib
import io

import numpy as np
import pytest
from helpers import call, rows_of, run_within, script

from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.label_errors import find_suspects
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.weights_file import load_weights

pytestmark = pytest.mark.usefixtures("linear_network", "plain_trainings")

SMALL = ("--config.model.input_size=16", "--config.train.batch_size=14", "--config.train.epochs=2")


def find(data, out, *arguments):
    """Returns the exit code and the output."""

    def shrink(config):
        config.model.name, config.model.kwargs = "linear", {}

    words = (f"--data={data}", f"--out={out}", "--folds=2", *arguments, "--", *SMALL)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        code, _ = run_within(patch, script("label_errors"), shrink, *words)
    return code, printed.getvalue()


@pytest.fixture(scope="module")
def done(linear_network, plain_trainings, tiny_data, tmp_path_factory):
    """Returns the folder of a finished search, and the output."""
    out = tmp_path_factory.mktemp("label_errors") / "out"
    code, printed = find(tiny_data, out)
    assert code == 0
    return out, printed


def test_each_fold_answers_for_what_its_training_left_out(done, tiny_data):
    out, _ = done
    faces = read.load(tiny_data, "train")
    found = predictions_file.read(out / "predictions.csv")
    probs, labels, ids = found.probs, found.labels, found.ids
    assert ids == list(faces.ids)
    np.testing.assert_array_equal(labels, faces.labels)
    seen = []
    for name in ("fold_0", "fold_1"):
        held_out = (out / f"{name}.txt").read_text().splitlines()
        _, metadata = load_weights(out / name)
        assert metadata["training"]["left_out"]["listed"] == len(held_out) == 35
        members = np.flatnonzero(np.isin(ids, held_out))
        assert (np.bincount(labels[members]) == 5).all()
        expected = LoadedModel(out / name / "last.safetensors").predict(faces.images[members], progress=False)
        np.testing.assert_allclose(probs[members], expected, atol=1e-6)
        seen += held_out
    assert sorted(seen) == sorted(ids)


def test_suspects_are_ranked_and_shown(done, tiny_data):
    out, printed = done
    found = predictions_file.read(out / "predictions.csv")
    suspects = find_suspects(found.probs, found.labels, found.ids)
    rows = rows_of(out / "suspects.csv")
    assert [row["id"] for row in rows] == [suspect.id for suspect in suspects]
    assert {row["label"] for row in rows} | {row["suggested"] for row in rows} <= set(EMOTIONS)
    assert (out / "suspects.png").stat().st_size
    assert f"{len(suspects):,} suspects: {out / 'suspects.csv'}" in printed


def test_the_same_command_recognises_what_is_finished(done, tiny_data):
    out, _ = done
    runs = sorted(out.glob("fold_*/summary.json"))
    before, suspects = [path.stat().st_mtime_ns for path in runs], (out / "suspects.csv").read_text()
    (out / "suspects.csv").unlink()
    code, printed = find(tiny_data, out, "--at_most=0.1")
    assert code == 0
    assert [path.stat().st_mtime_ns for path in runs] == before and len(runs) == 2
    # The 7 most suspicious of the same suspects among 70 images.
    assert (out / "suspects.csv").read_text().splitlines() == suspects.splitlines()[:8]
    assert len(suspects.splitlines()) > 8 and "kept the" in printed
    (out / "suspects.csv").write_text(suspects)


def test_other_folds_are_another_run(done, tiny_data, capsys):
    out, _ = done
    held_out = (out / "fold_0.txt").read_text()
    assert find(tiny_data, out, "--seed=1")[0] == 1
    assert "drop_ids_hash:" in capsys.readouterr().err
    (out / "fold_0.txt").write_text(held_out)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("--folds=1",), "--folds: '1': expected int, 2 to 1e+09"),
        (("--at_most=0",), "--at_most: '0': expected float, 1e-09 to 1"),
        (("--", "--config.data.dir=elsewhere"), "--config.data.dir=elsewhere after --: the command sets"),
        (("--", "--config.data.labels=ferplus_votes"), "ferplus_votes after --: the command sets this"),
        (("--data=nowhere",), "error: nowhere is not a prepared dataset"),
    ],
)
def test_refuses(arguments, message, tmp_path, capsys):
    assert call(script("label_errors"), f"--out={tmp_path}", *arguments) == 2
    assert message in capsys.readouterr().err
