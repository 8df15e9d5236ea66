"""Tests loading the faces of a config, and cleaning the training split."""

import hashlib
import json

import numpy as np
import pytest
from helpers import build_dataset, named, records
from small_runs import simple_config

from fer_jax.data.dataset import read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.data.sources import synthetic
from fer_jax.pretrained.weights_file import load_weights
from fer_jax.training import training_data
from fer_jax.training.monitoring import StopSignal
from fer_jax.training.train import Run, train_and_evaluate
from fer_jax.training.validate import validate


def test_given_labels_of_data_with_votes(tiny_ferplus, tiny_data):
    voted = training_data.load_split(simple_config(tiny_ferplus), "validation")
    plain = training_data.load_split(simple_config(tiny_data), "validation")
    np.testing.assert_array_equal(voted.labels, plain.labels)
    np.testing.assert_array_equal(voted.targets, plain.targets)


def test_labels_by_votes_need_votes(tiny_data):
    config = simple_config(tiny_data, **{"data.labels": "ferplus_votes"})
    with pytest.raises(ValueError, match="has no FER\\+ votes: prepare it with .* --ferplus"):
        training_data.load_split(config, "train")


def test_color_needs_a_model_that_takes_it(tmp_path):
    faces = {split: named(*synthetic.generate(1, 0, split)) for split in ("train", "validation")}
    build_dataset(tmp_path / "data", faces, channels=3)
    with pytest.raises(ValueError, match="have 3 channels, but config.model.channels is 1: set --config"):
        training_data.load_split(simple_config(tmp_path / "data"), "train")


def cleaned(faces, listed, path):
    path.write_text("\n".join(listed))
    config = simple_config("none", **{"data.merge_twins": True, "data.drop_ids": str(path)})
    return training_data.clean(faces, config.data, training_data.read_excluded(config))


def test_a_listed_duplicate_leaves_the_other_copy(tiny_data, tmp_path):
    faces = read.load(tiny_data, "train")
    faces.images[1] = faces.images[0]
    train, metadata = cleaned(faces, [faces.ids[0]], tmp_path / "ids")
    assert train.ids[0] == faces.ids[1] and metadata["left_out"] == {"listed": 1, "blank": 0, "twin": 0}
    with pytest.raises(ValueError, match="ids, row 2: no training image has the id 'Training/none'"):
        cleaned(faces, [faces.ids[5], "Training/none"], tmp_path / "ids")


# -------------------- in a run --------------------


def test_a_run_on_ferplus_with_eight_classes(trained, tiny_ferplus):
    changes = {"data.labels": "ferplus_majority", "data.num_classes": 8, "train.steps": 2}
    workdir, _ = trained(simple_config(tiny_ferplus, **changes))
    variables, metadata = load_weights(workdir)
    assert variables["params"]["Dense_0"]["kernel"].shape == (1, 8)
    assert metadata["emotions"] == [*EMOTIONS, "contempt"]
    assert (metadata["labels"], metadata["annotations"]) == ("ferplus_majority", ["ferplus"])
    report = json.loads((workdir / "report" / "report.json").read_text())
    # Two of validation's four neutral faces have votes for contempt.
    support = {name: row["support"] for name, row in report["per_class"].items()}
    assert support == dict.fromkeys(EMOTIONS, 4) | {"neutral": 2, "contempt": 2}
    header = (workdir / "report" / "predictions.csv").read_text().splitlines()[0]
    assert header == "id,label,prediction," + ",".join([*EMOTIONS, "contempt", "group", "copy"])


@pytest.mark.parametrize("classes, train, validation", [(7, 65, 26), (8, 70, 28)])
def test_soft_labels_reach_the_batches(classes, train, validation, tiny_ferplus, tmp_path):
    config = simple_config(tiny_ferplus, **{"data.labels": "ferplus_votes", "data.num_classes": classes})
    run = Run(validate(config), tmp_path, StopSignal())
    try:
        assert run.stream.batches_per_epoch == train / config.train.batch_size
        assert len(run.selection) == validation
        targets = next(run.stream)["target"]
        # Six votes for one class and two for another; unknown is not a class.
        expected = np.sort(np.eye(classes)[:1] * 0.75 + np.eye(classes)[1:2] * 0.25)
        np.testing.assert_array_equal(np.sort(targets), np.repeat(expected, len(targets), axis=0))
    finally:
        run.close()


def test_listed_images_are_left_out(tiny_data, tmp_path):
    faces = read.load(tiny_data, "train")
    listed = tmp_path / "suspects.csv"
    rows = [f"{EMOTIONS[faces.labels[i]]},{faces.ids[i]}" for i in (3, 33, 69)]
    listed.write_text("\n".join(["label,id", *rows]) + "\n")
    config = simple_config(tiny_data, **{"data.drop_ids": str(listed), "train.steps": 2, "log_every": 1})
    train_and_evaluate(config, tmp_path / "run")
    digest = hashlib.sha256(listed.read_bytes()).hexdigest()
    assert load_weights(tmp_path / "run")[1]["training"] == {
        "images": 67,
        "left_out": {"listed": 3, "blank": 0, "twin": 0},
        "drop_ids_hash": digest,
    }
    # An epoch has the remaining faces.
    assert records(tmp_path / "run")[0]["epoch"] == round(16 / 67, 4)
    # A moved list gives the same run; another list under the old name does not.
    listed.rename(tmp_path / "moved.csv")
    config.data.drop_ids = str(tmp_path / "moved.csv")
    train_and_evaluate(config, tmp_path / "run")
    (tmp_path / "moved.csv").write_text(faces.ids[5])
    with pytest.raises(ValueError, match=f"drop_ids_hash: '{digest}' there, .* here"):
        train_and_evaluate(config, tmp_path / "run")
