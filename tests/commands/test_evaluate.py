"""fer-jax evaluate from weights and data on disk to a report, and its complaints."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import plain_trainings, run_command, run_python, script
from PIL import Image

from fer_jax import models
from fer_jax.data import ferplus
from fer_jax.data.dataset import builder
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import synthetic
from fer_jax.pretrained.registry import BUNDLED, find_weights
from fer_jax.weights_file import export_weights, load_weights

KWARGS = {"widths": [4, 8], "hidden": 8}


@pytest.fixture(scope="module")
def evaluate():
    return script("evaluate")


def prepare(folder, channels=1, splits=(("train", 2), ("validation", 5), ("test", 3))):
    """A dataset of synthetic faces, built from image files."""
    for split, count in splits:
        images, labels = synthetic.generate(count, 0, split)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = folder / "images" / split / EMOTIONS[label] / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = Image.fromarray(image[..., 0])
            if channels == 3:
                picture = Image.merge("RGB", [picture, picture, Image.new("L", (48, 48))])
            picture.save(path)
    builder.build(folder / "images", folder / "data", progress=False)
    return folder / "data"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("grey"))


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    """A work directory with the best weights of a tiny model, and its variables."""
    folder = tmp_path_factory.mktemp("run")
    model = models.create("cnn_relu", **KWARGS)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 48, 48, 1)))
    # A fresh network gives all classes about the same: spread them.
    variables["params"]["Dense_1"]["kernel"] *= 20
    facts = {
        "model": {"name": "cnn_relu", "kwargs": KWARGS},
        "preprocess": {
            "image_size": 48, "channels": 1, "mean": 0.5, "std": 0.25, "fill": "reflect",
            "interpolation": "bilinear",
        },
        "emotions": list(EMOTIONS),
        "config": {"seed": 0},
        "data": {"name": "tiny", "splits": builder.read_manifest(data)["splits"]},
        "data_hash": builder.read_manifest(data)["content_hash"],
        "selection": {"split": "validation", "metric": "accuracy", "value": 0.5, "step": 10},
        "seed": 0,
        "version": "0.1.0",
        "ema": False,
    }  # fmt: skip
    export_weights(folder / "best.safetensors", variables, facts)
    return folder, model, variables


def read_predictions(out):
    with open(out / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return {r["id"]: np.array([float(r[name]) for name in EMOTIONS]) for r in rows}


def test_workdir_to_report(evaluate, run, data, tmp_path, capsys):
    folder, model, variables = run
    arguments = ["--workdir", str(folder), "--data", str(data), "--out", str(tmp_path)]
    assert evaluate.main(arguments) == 0
    result = json.loads((tmp_path / "report.json").read_text())
    assert result["num_examples"] == 35 and result["split"] == "validation"
    assert result["checkpoint"] == str(folder / "best.safetensors")
    assert result["selected_on_this_split"] is True
    assert result["parameters"] == sum(x.size for x in jax.tree.leaves(variables["params"]))
    assert result["data_hash"] == builder.read_manifest(data)["content_hash"]

    faces = builder.load(data, "validation")
    got = read_predictions(tmp_path)
    assert list(got) == list(faces.ids)
    logits = jax.jit(model.apply)(variables, (faces.images / 255.0 - 0.5) / 0.25)
    expected = scipy.special.softmax(np.asarray(logits, np.float64), axis=1)
    np.testing.assert_allclose(np.stack(list(got.values())), expected, atol=1e-4)
    accuracy = np.mean([p.argmax() == y for p, y in zip(got.values(), faces.labels, strict=True)])
    assert result["accuracy"] == pytest.approx(accuracy)

    printed = capsys.readouterr().out
    assert f"accuracy           {accuracy:.4f}   95 %" in printed
    assert "selected on this split" in printed and f"report: {tmp_path / 'report.md'}" in printed


def test_checkpoint_split_tta_and_batch_sizes(evaluate, run, data, tmp_path):
    weights = run[0] / "best.safetensors"
    base = ["--checkpoint", str(weights), "--data", str(data), "--split", "test", "--tta", "flip"]
    results = []
    for size in ("1", "7", "256"):
        out = tmp_path / size
        assert evaluate.main([*base, "--batch_size", size, "--out", str(out)]) == 0
        results.append(np.stack(list(read_predictions(out).values())))
    assert len(results[0]) == 21
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], atol=1e-5)
        np.testing.assert_array_equal(other.argmax(axis=1), results[0].argmax(axis=1))
    result = json.loads((tmp_path / "7" / "report.json").read_text())
    assert result["tta"] == "flip" and result["selected_on_this_split"] is False
    assert "`test` had no part in the training" in result["note"]
    assert result["copies"] == {"near": 0, "identical": 0} and result["headline"] == "accuracy"
    ledger = (run[0] / "test_evaluations.jsonl").read_text().splitlines()
    assert [json.loads(line)["accuracy"] for line in ledger] == [result["accuracy"]] * 3
    assert result["test_evaluations"] == 2


def test_other_data_than_the_training(evaluate, run, tmp_path):
    other = prepare(tmp_path, splits=(("train", 1), ("validation", 2), ("test", 1)))
    arguments = ["--workdir", str(run[0]), "--data", str(other), "--out", str(tmp_path / "out")]
    assert evaluate.main(arguments) == 0
    result = json.loads((tmp_path / "out" / "report.json").read_text())
    assert result["data_hash"] != result["trained_data_hash"]
    assert result["copies"] is None and result["leak_free"] is None
    assert "--training_data tells" in result["note"]


def test_copies_in_the_data_of_the_training(evaluate, run, data, tmp_path):
    """Another dataset's faces, two of which the training saw."""
    mine = tmp_path / "images"
    train = builder.load(data, "train")
    fresh, labels = synthetic.generate(2, 5, "test")
    for i, (image, label) in enumerate(
        zip([*fresh, *train.images[:2]], [*labels, *train.labels[:2]], strict=True)
    ):
        path = mine / "test" / EMOTIONS[label] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    builder.build(mine, tmp_path / "data", progress=False)
    arguments = ["--workdir", str(run[0]), "--data", str(tmp_path / "data"), "--split", "test"]
    arguments += ["--training_data", str(data), "--out", str(tmp_path / "out")]
    assert evaluate.main(arguments) == 0
    result = json.loads((tmp_path / "out" / "report.json").read_text())
    assert result["copies"]["identical"] == 2 and result["headline"] == "without_near"
    assert result["leak_free"]["without_identical"]["num_examples"] == 14


@pytest.fixture
def complaint(evaluate, capsys, tmp_path):
    """Runs the script with arguments that cannot work; what it says, and that it wrote nothing."""

    def run(**arguments):
        arguments = {"out": tmp_path / "out"} | arguments
        words = [w for key, value in arguments.items() for w in (f"--{key}", str(value))]
        assert evaluate.main(words) == 2
        if arguments["out"] == tmp_path / "out":
            assert not (tmp_path / "out" / "report.json").exists()
        message = capsys.readouterr().err
        assert "error: " in message and "Traceback" not in message
        return message

    return run


def test_missing_weights(complaint, data, tmp_path):
    message = complaint(checkpoint=tmp_path / "none.safetensors", data=data)
    assert f"there are no weights {tmp_path / 'none.safetensors'}" in message
    assert all(name in message for name in BUNDLED)
    for workdir in (tmp_path, tmp_path / "none"):
        message = complaint(workdir=workdir, data=data)
        assert f"there is no {workdir / 'best.safetensors'}" in message


def test_the_weights_of_the_package_go_by_their_names(evaluate, data, tmp_path):
    base = ["--data", str(data), "--split", "validation"]
    path = find_weights("cnn_250k")
    for weights, out in (("cnn_250k", "name"), (path, "path")):
        with plain_trainings():
            assert evaluate.main(["--checkpoint", weights, *base, "--out", str(tmp_path / out)]) == 0
    named, found = ((tmp_path / out / "predictions.csv").read_text() for out in ("name", "path"))
    assert named == found
    report = json.loads((tmp_path / "path" / "report.json").read_text())
    assert report["num_examples"] == 35 and report["checkpoint"] == str(path)
    assert report["data_hash"] != report["trained_data_hash"]
    assert (tmp_path / "path" / "report.md").read_text().startswith("# cnn_250k on `validation`: ")


def test_damaged_weights(complaint, data, run, tmp_path):
    whole = (run[0] / "best.safetensors").read_bytes()
    path = tmp_path / "half.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    assert f"{path} is not a whole safetensors file" in complaint(checkpoint=path, data=data)


@pytest.mark.parametrize(
    ("part", "change", "expected"),
    [
        ("facts", lambda f: f.pop("model"), "lack model.name, model.kwargs, which"),
        ("facts", lambda f: f["preprocess"].pop("mean"), "lack preprocess.mean, which"),
        ("facts", lambda f: f.update(preprocess=None), "lack preprocess.image_size, preprocess.channels"),
        ("facts", lambda f: f["emotions"].reverse(), "expected ['angry', 'disgust'"),
        ("facts", lambda f: f["model"].update(name="vgg"), "unknown model 'vgg'"),
        (
            "facts",
            lambda f: f["model"]["kwargs"].update(hidden=9),
            "params/Dense_0/kernel: (8, 8) given, (8, 9) expected",
        ),
        (
            "params",
            lambda p: p.pop("Conv_0"),
            "(1 arrays differ):\n  params/Conv_0/kernel: nothing given, (3, 3, 1, 4) expected",
        ),
        (
            "params",
            lambda p: p.update(more=np.ones(3)),
            "(1 arrays differ):\n  params/more: (3,) given, nothing expected",
        ),
    ],
)
def test_weights_that_do_not_say_how_to_use_them_or_do_not_fit(
    complaint, data, run, tmp_path, part, change, expected
):
    variables, facts = load_weights(run[0])
    change(facts if part == "facts" else variables["params"])
    path = tmp_path / "other.safetensors"
    export_weights(path, variables, facts)
    message = complaint(checkpoint=path, data=data)
    assert str(path) in message and expected in message


def test_missing_data(complaint, run, tmp_path):
    message = complaint(workdir=run[0], data=tmp_path / "nothing")
    assert "fer-jax prepare --source" in message


def test_empty_split(complaint, run, tmp_path):
    small = prepare(tmp_path, splits=(("train", 2), ("validation", 1)))
    message = complaint(workdir=run[0], data=small, split="test")
    assert "no test split" in message and "train, validation" in message


def test_colour_faces_for_a_grey_model(complaint, run, tmp_path):
    colour = prepare(tmp_path, channels=3, splits=(("train", 1), ("validation", 1), ("test", 1)))
    message = complaint(workdir=run[0], data=colour)
    assert "3 channels (colour)" in message and "takes 1 (grey)" in message


def test_unwritable_out(complaint, run, data, tmp_path):
    (tmp_path / "file").write_text("")
    message = complaint(workdir=run[0], data=data, out=tmp_path / "file" / "out")
    assert f"cannot write to {tmp_path / 'file' / 'out'}" in message
    assert "give another --out" in message


def test_figures_by_group(evaluate, run, data, tmp_path):
    ids = builder.load(data, "validation").ids
    rows = [f"{name},{('young', 'old')[i % 2]}" for i, name in enumerate(ids)]
    table = tmp_path / "faces.csv"
    table.write_text("\n".join(["id,age", *rows, "another,old"]))
    arguments = ["--workdir", str(run[0]), "--data", str(data), "--out", str(tmp_path / "out")]
    assert evaluate.main([*arguments, "--attributes", str(table)]) == 0
    found = json.loads((tmp_path / "out" / "subgroups.json").read_text())
    assert (found["in_split"], found["not_in_split"], found["without_row"]) == (35, 1, 0)
    groups = found["attributes"]["age"]["groups"]
    assert {value: row["n"] for value, row in groups.items()} == {"old": 17, "young": 18}
    whole = json.loads((tmp_path / "out" / "report.json").read_text())["accuracy"]
    assert (17 * groups["old"]["accuracy"] + 18 * groups["young"]["accuracy"]) / 35 == pytest.approx(whole)


def test_attributes_of_other_images(complaint, run, data, tmp_path):
    table = tmp_path / "faces.csv"
    table.write_text("id,age\nanother,old\n")
    message = complaint(workdir=run[0], data=data, attributes=table)
    assert f"{table}: none of its ids is in the split; it has 'another', the split '" in message
    assert "No such file" in complaint(workdir=run[0], data=data, attributes=tmp_path / "none.csv")


def test_batch_size_zero(evaluate, run, data, tmp_path, capsys):
    arguments = ["--workdir", str(run[0]), "--data", str(data), "--out", str(tmp_path), "--batch_size", "0"]
    with pytest.raises(SystemExit, match="2"):
        evaluate.main(arguments)
    assert "0 is not 1 or more" in capsys.readouterr().err


def test_help_and_wrong_flags():
    shown = run_python("scripts/evaluate.py", "--help")
    assert shown.returncode == 0 and "predictions.csv" in shown.stdout
    wrong = run_command("evaluate", "--data", "x", "--out", "y")
    assert wrong.returncode == 2
    assert "one of the arguments --workdir --checkpoint is required" in wrong.stderr


def test_the_annotators_labels(evaluate, run, data, tmp_path, capsys):
    """Weights that learnt from votes are judged by these, by the given labels, or refused without votes."""
    variables, facts = load_weights(run[0])
    weights = tmp_path / "plus.safetensors"
    export_weights(weights, variables, facts | {"labels": "ferplus_majority", "annotations": ["ferplus"]})
    base = ["--checkpoint", str(weights), "--out", str(tmp_path / "out")]
    assert evaluate.main([*base, "--data", str(data)]) == 2
    assert "need FER+ votes" in capsys.readouterr().err

    folder = tmp_path / "csv"
    folder.mkdir()
    images, labels = synthetic.generate(4, 3, "validation")
    columns = (4, 5, 6, 1, 3, 2, 0)  # of the votes, for each emotion
    with open(folder / "fer2013.csv", "w") as pixels, open(folder / "fer2013new.csv", "w") as votes:
        pixels.write("emotion,pixels,Usage\n")
        votes.write(f"Usage,Image name,{','.join(ferplus.COLUMNS)}\n")
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            pixels.write(f"{label},{' '.join(map(str, image.ravel()))},PublicTest\n")
            row = np.zeros(10, int)
            row[columns[label]], row[8] = (10, 0) if i % 4 else (3, 7)  # every fourth: nobody knows
            votes.write(f"PublicTest,fer{i:07}.png,{','.join(map(str, row))}\n")
    builder.build(
        folder / "fer2013.csv", tmp_path / "voted", ferplus_csv=folder / "fer2013new.csv", progress=False
    )
    assert evaluate.main([*base, "--data", str(tmp_path / "voted")]) == 0
    result = json.loads((tmp_path / "out" / "report.json").read_text())
    assert result["labels"] == "ferplus_majority" and result["num_examples"] == 21
    page = (tmp_path / "out" / "report.md").read_text()
    assert "Extra annotations: ferplus." in page and "## Annotators" in page
    assert result["annotators"]["against"]["given"]["accuracy"] == result["accuracy"]
    assert evaluate.main([*base, "--data", str(tmp_path / "voted"), "--labels", "given"]) == 0
    result = json.loads((tmp_path / "out" / "report.json").read_text())
    assert result["labels"] == "given" and result["num_examples"] == 28
    assert result["annotators"]["against"]["ferplus_majority"]["num_examples"] == 21


def test_the_cost_is_in_the_report(evaluate, run, data, tmp_path):
    base = ["--workdir", str(run[0]), "--data", str(data), "--out", str(tmp_path)]
    costs = []
    for flags in ([], ["--latency"]):
        assert evaluate.main([*base, *flags]) == 0
        costs.append(json.loads((tmp_path / "report.json").read_text())["cost"])
    without, measured = costs
    assert without["flops"] == measured["flops"] > 0 and without["latency"] is None
    assert measured["latency"]["milliseconds"] > 0 and measured["latency"]["hardware"]
