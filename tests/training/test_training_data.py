"""The faces that a configuration names, and what is left out of the training split."""

import numpy as np
import pytest
from PIL import Image
from small_runs import simple_config

from fer_jax.data.dataset import build, read
from fer_jax.data.emotions import EMOTIONS
from fer_jax.training import training_data


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
    for split in ("train", "validation"):
        for name in EMOTIONS:
            path = tmp_path / "images" / split / name / "0.png"
            path.parent.mkdir(parents=True)
            Image.new("RGB", (24, 24), (len(name), len(split), 9)).save(path)
    build.build(tmp_path / "images", tmp_path / "data", progress=False)
    with pytest.raises(ValueError, match="have 3 channels and config.model.channels is 1: set --config"):
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
