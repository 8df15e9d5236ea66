"""Tests fer-jax evaluate from weights and data on disk to a report, and its errors."""

import json
import shutil

import jax
import numpy as np
import pytest
import scipy.special
from helpers import build_dataset, call, named, plain_trainings, program, script

from fer_jax import models
from fer_jax.data.dataset import read
from fer_jax.data.sources import synthetic
from fer_jax.evaluation import predictions_file
from fer_jax.pretrained.registry import BUNDLED, find_weights
from fer_jax.pretrained.weights_file import export_weights, load_weights


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_run):
    """Returns a run directory; evaluations on test are recorded in it."""
    return shutil.copytree(tiny_run, tmp_path_factory.mktemp("evaluate") / "run")


@pytest.fixture
def evaluate(run, tiny_data, tmp_path):
    """Returns a function that runs the command, by default on the run and tiny data -> report.json."""

    def call(*switches, code=0, **flags):
        flags = {"workdir": run, "data": tiny_data, "out": tmp_path / "out"} | flags
        if "checkpoint" in flags:
            del flags["workdir"]
        words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
        with plain_trainings():
            assert script("evaluate").main([*words, *switches]) == code
        return json.loads((tmp_path / flags["out"] / "report.json").read_text()) if not code else None

    return call


@pytest.fixture
def complaint(evaluate, tmp_path, capsys):
    """Returns the error message for invalid flags, after checking that no report was written."""

    def call(**flags):
        evaluate(code=2, **flags)
        assert not (tmp_path / "out" / "report.json").exists()
        message = capsys.readouterr().err
        assert "error: " in message and "Traceback" not in message
        return message

    return call


def synthetic_faces(**counts):
    return {split: named(*synthetic.generate(count, 5, split)) for split, count in counts.items()}


def test_workdir_to_report(evaluate, run, tiny_data, tmp_path, capsys):
    result = evaluate()
    assert result["num_examples"] == 28 and result["split"] == "validation"
    assert result["checkpoint"] == str(run / "best.safetensors")
    assert result["selected_on_this_split"] is True
    variables, metadata = load_weights(run)
    assert result["parameters"] == sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert result["data_hash"] == read.read_manifest(tiny_data)["content_hash"]

    faces = read.load(tiny_data, "validation")
    got = predictions_file.read(tmp_path / "out" / "predictions.csv")
    assert got.ids == list(faces.ids)
    model = models.create("cnn_relu", **metadata["model"]["kwargs"])
    logits = jax.jit(model.apply)(variables, (faces.images / 255.0 - 0.5) / 0.25)
    expected = scipy.special.softmax(np.asarray(logits, np.float64), axis=1)
    np.testing.assert_allclose(got.probs, expected, atol=1e-4)
    accuracy = np.mean(got.probs.argmax(axis=1) == faces.labels)
    assert result["accuracy"] == pytest.approx(accuracy)

    printed = capsys.readouterr().out
    assert f"accuracy           {accuracy:.4f}   95 %" in printed
    assert "selected on this split" in printed and f"report: {tmp_path / 'out' / 'report.md'}" in printed


def test_checkpoint_split_and_tta(evaluate, run, tmp_path):
    for size in (1, 7):
        result = evaluate(checkpoint=run / "best.safetensors", split="test", tta="flip", batch_size=size)
    assert result["num_examples"] == 14
    assert result["tta"] == "flip" and result["selected_on_this_split"] is False
    assert "`test` was not used in training" in result["note"]
    assert result["copies"] == {"near": 0, "identical": 0} and result["headline"] == "accuracy"
    ledger = (run / "test_evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["accuracy"] for line in ledger[-2:]] == [result["accuracy"]] * 2
    assert result["test_evaluations"] == len(ledger)


def test_other_data_than_the_training_with_copies_of_it(evaluate, tiny_data, tmp_path):
    train, faces = read.load(tiny_data, "train"), synthetic_faces(test=2)
    faces["test"] += named(train.images[:2], train.labels[:2])
    data = build_dataset(tmp_path / "data", faces)
    result = evaluate(data=data, split="test")
    assert result["data_hash"] != result["trained_data_hash"]
    assert result["copies"] is None and result["leak_free"] is None
    assert "give it as --training_data" in result["note"]
    result = evaluate(data=data, split="test", training_data=tiny_data)
    assert result["copies"]["identical"] == 2 and result["headline"] == "without_near"
    assert result["leak_free"]["without_identical"]["num_examples"] == 14


def test_weights_that_are_missing_or_damaged(complaint, run, tmp_path):
    message = complaint(checkpoint=tmp_path / "none.safetensors")
    assert f"there are no weights {tmp_path / 'none.safetensors'}" in message
    assert all(name in message for name in BUNDLED)
    for workdir in (tmp_path, tmp_path / "none"):
        assert f"{workdir / 'best.safetensors'} does not exist" in complaint(workdir=workdir)
    path, whole = tmp_path / "half.safetensors", (run / "best.safetensors").read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert f"{path} is not a complete safetensors file" in complaint(checkpoint=path)


def test_the_weights_of_the_package_go_by_their_names(evaluate, tmp_path):
    report = evaluate(checkpoint="cnn_250k")
    assert report["num_examples"] == 28 and report["checkpoint"] == str(find_weights("cnn_250k"))
    assert report["data_hash"] != report["trained_data_hash"]
    assert (tmp_path / "out" / "report.md").read_text().startswith("# cnn_250k on `validation`: ")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f, p: f.pop("model"), "lacks model.name, model.kwargs: use weights"),
        (lambda f, p: f["preprocess"].pop("mean"), "lacks preprocess.mean: use weights"),
        (lambda f, p: f.update(preprocess=None), "lacks preprocess.image_size, preprocess.channels"),
        (lambda f, p: f["emotions"].reverse(), "expected ['angry', 'disgust'"),
        (lambda f, p: f["model"].update(name="vgg"), "unknown model 'vgg'"),
        (lambda f, p: f["model"]["kwargs"].update(hidden=9), "Dense_0/kernel: (8, 8) given, (8, 9) expected"),
        (lambda f, p: p.pop("Conv_0"), "(1 arrays differ):\n  params/Conv_0/kernel: nothing given, (3, "),
        (lambda f, p: p.update(x=np.ones(3)), "(1 arrays differ):\n  params/x: (3,) given, nothing expected"),
    ],
)
def test_weights_that_do_not_say_how_to_use_them_or_do_not_fit(complaint, run, tmp_path, change, expected):
    variables, metadata = load_weights(run)
    change(metadata, variables["params"])
    path = tmp_path / "other.safetensors"
    export_weights(path, variables, metadata)
    message = complaint(checkpoint=path)
    assert str(path) in message and expected in message


def test_data_that_cannot_be_used(complaint, tmp_path):
    assert "fer-jax prepare --source" in complaint(data=tmp_path / "nothing")
    faces = synthetic_faces(train=1, validation=1)
    color, gray = (build_dataset(tmp_path / str(count), faces, count) for count in (3, 1))
    message = complaint(data=color)
    assert "3 channels (color)" in message and "takes 1 (grayscale)" in message
    message = complaint(data=gray, split="test")
    assert "no test split" in message and "train, validation" in message


def test_unwritable_out(evaluate, tmp_path, capsys):
    (out := tmp_path / "file").touch()
    evaluate(code=2, out=out / "out")
    message = capsys.readouterr().err
    assert f"cannot write to {out / 'out'}" in message and "give another --out" in message


def test_figures_by_group(evaluate, complaint, tiny_data, tmp_path):
    table = tmp_path / "faces.csv"
    table.write_text("id,age\nanother,old\n")
    message = complaint(attributes=table)
    assert f"{table}: none of its ids is in the split; it has 'another', the split '" in message
    assert "No such file" in complaint(attributes=tmp_path / "none.csv")
    ids = read.load(tiny_data, "validation").ids
    rows = [f"{name},{('young', 'old')[i % 2]}" for i, name in enumerate(ids)]
    table.write_text("\n".join(["id,age", *rows, "another,old"]))
    whole = evaluate(attributes=table)
    found = json.loads((tmp_path / "out" / "subgroups.json").read_text())
    assert (found["in_split"], found["not_in_split"], found["without_row"]) == (28, 1, 0)
    groups = found["attributes"]["age"]["groups"]
    assert {value: row["n"] for value, row in groups.items()} == {"old": 14, "young": 14}
    assert np.mean([row["accuracy"] for row in groups.values()]) == pytest.approx(whole["accuracy"])
    assert "(subgroups.md)" in (tmp_path / "out" / "report.md").read_text()


def test_help_and_wrong_flags(evaluate, capsys):
    with pytest.raises(SystemExit, match="2"):
        evaluate(batch_size=0)
    assert "'0': expected int, 1 to 1e+09" in capsys.readouterr().err
    assert call(program("scripts/evaluate.py"), "--help") == 0
    assert "predictions.csv" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        script("evaluate").main(["--data", "x", "--out", "y"])
    assert "one of the arguments --workdir --checkpoint is required" in capsys.readouterr().err


def test_the_annotators_labels(evaluate, complaint, run, tiny_ferplus, tmp_path):
    """Weights trained on votes are scored against votes or given labels, and rejected without votes."""
    variables, metadata = load_weights(run)
    weights = tmp_path / "plus.safetensors"
    export_weights(weights, variables, metadata | {"labels": "ferplus_majority", "annotations": ["ferplus"]})
    assert "need FER+ votes" in complaint(checkpoint=weights)

    # Two of the 28 faces are labeled contempt, which is not among the seven classes.
    result = evaluate(checkpoint=weights, data=tiny_ferplus)
    assert result["labels"] == "ferplus_majority" and result["num_examples"] == 26
    page = (tmp_path / "out" / "report.md").read_text()
    assert "Trained with extra annotations: ferplus." in page and "## Annotators" in page
    assert result["annotators"]["against"]["ferplus_majority"]["accuracy"] == result["accuracy"]
    result = evaluate(checkpoint=weights, data=tiny_ferplus, labels="given")
    assert result["labels"] == "given" and result["num_examples"] == 28
    assert result["annotators"]["against"]["ferplus_majority"]["num_examples"] == 26
    assert result["annotators"]["against"]["given"]["accuracy"] == result["accuracy"]


def test_the_cost_is_in_the_report(evaluate):
    without, measured = evaluate()["cost"], evaluate("--latency")["cost"]
    assert without["flops"] == measured["flops"] > 0 and without["latency"] is None
    assert measured["latency"]["milliseconds"] > 0 and measured["latency"]["hardware"]
