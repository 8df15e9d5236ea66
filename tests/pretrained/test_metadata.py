"""Tests the metadata of weights: error messages for invalid fields, and that valid metadata is usable."""

import copy
import math

import pytest
from helpers import needed
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_jax.data.emotions import class_names
from fer_jax.evaluation import leakage_policy
from fer_jax.pretrained.loaded_model import LoadedModel
from fer_jax.pretrained.metadata import check_network, check_ported
from fer_jax.pretrained.registry import BUNDLED, find_weights, network_name
from fer_jax.pretrained.weights_file import export_weights, load_weights

FACTS = load_weights(find_weights("effnet_b0"))[1]  # with every field
PORTED = {
    "model": "resnet18",
    "file": "resnet18.pth",
    "licence": "BSD-3-Clause",
    "missing": [],
    "conventions": {"padding": "symmetric", "epsilon": 1e-5},
    "preprocess": {"mean": [0.5] * 3, "std": [0.2] * 3, "interpolation": "bilinear"},
}


def with_value(facts, name, value):
    """Returns metadata with another value under a dotted name, or without the field."""
    changed = copy.deepcopy(facts)
    *parents, leaf = name.split(".")
    tree = changed
    for key in parents:
        tree = tree[int(key) if isinstance(tree, list) else key]
    if value is ...:
        del tree[leaf]
    else:
        tree[int(leaf) if isinstance(tree, list) else leaf] = value
    return changed


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_networks_fit(name):
    check_network(load_weights(find_weights(name))[1], name)


TEMPERATURE = "a number from 1e-06 to 1e+06"
SIDE, LEVEL = "an integer from 1 to 4096", "a number above 0, or a list of one for each channel"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *[("calibration.temperature", x, TEMPERATURE) for x in (0, -1, math.inf, math.nan, "1")],
        ("calibration", 3, "an object"),
        ("calibration.split", "PublicTest", "one of train, validation, test"),
        *[("preprocess.image_size", x, SIDE) for x in (0, -48, 48.0, "48", 10**6, True, 10**400)],
        ("preprocess.channels", 2, "one of 1, 3"),
        ("preprocess.channels", True, "one of 1, 3"),
        *[("preprocess.std", x, LEVEL) for x in (0, -1, [1, 2], [0, 1, 1], "0.2", {}, [])],
        ("preprocess.mean", [0.5], "a number, or 3, one for each channel"),
        ("preprocess.mean", math.inf, "a finite number, or a list of one for each channel"),
        (
            "preprocess",
            FACTS["preprocess"] | {"gain": 2},
            "an object of image_size, channels, mean, std, fill",
        ),
        ("preprocess.fill", "mirror", "one of reflect, constant"),
        ("preprocess.interpolation", 2, "one of bilinear, bicubic"),
        ("emotions", ["angry"] * 7, "['angry', 'disgust'"),
        ("emotions", list(class_names(8))[1:], "['angry', 'disgust'"),
        ("emotions", "angry", "['angry', 'disgust'"),
        ("model.name", 3, "text"),
        ("model.kwargs", [1], "an object"),
        ("data", "fer2013", "an object"),
        *[("data.splits", x, "an object with an object for each split") for x in ([1], [{}], {"train": 1})],
        ("data.splits.train.hash", 3, "text"),
        ("data.splits.train.count", 0.5, "an integer, 0 or more"),
        ("data_hash", 3, "text"),
        ("faces.side", 0, SIDE),
        ("labels", None, "one of given, ferplus"),
        ("annotations", "ferplus", "a list of texts"),
        ("ancestors", None, "a list of objects"),
        ("ancestors", {"x": {}}, "a list of objects"),
        ("ancestors.0", 3, "a list of objects"),
        ("ancestors.0.data.splits.train.hash", 3, "text"),
        ("evaluation.value", "0.7", "a finite number"),
        ("selection.step", -1, "an integer, 0 or more"),
        ("pretrained.licence", 3, "text"),
        ("config.checkpoint.dtype", "int8", "one of float32, float16"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_found_and_expected(name, value, expected):
    with pytest.raises(ValueError, match="the metadata in w.safetensors cannot be used") as error:
        check_network(with_value(FACTS, name, value), "w.safetensors")
    said = str(error.value)
    assert (name.removesuffix(".0") if value == 3 else name) in said and f"expected {expected}" in said


@pytest.mark.parametrize(
    "name",
    ["model.name", "preprocess.std", "emotions", "data", "data.name", "data_hash", "calibration.temperature",
     "calibration.split", "evaluation.metric", "selection.value", "pretrained.file"],
)  # fmt: skip
@pytest.mark.parametrize("value", [..., None])
def test_a_missing_field_is_named(name, value):
    with pytest.raises(ValueError, match=f"the metadata in w lacks {name}.*: use weights that"):
        check_network(with_value(FACTS, name, value), "w")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("missing", ..., "lacks missing: use weights that fer_jax's port-weights wrote"),
        ("preprocess", 3, "lacks preprocess.mean, preprocess.std, preprocess.interpolation"),
        ("preprocess.std", [0.2, 0, 0.2], "preprocess.std is .* expected a number above 0"),
        ("preprocess.mean", [0.5], "expected a number, or 3, one for each channel"),
        ("conventions.epsilon", 0, "conventions.epsilon is 0; expected a number from 1e-06"),
        ("conventions.padding", "valid", "expected one of symmetric, same"),
        ("missing", "params/stem/kernel", "expected a list of texts"),
    ],
)
def test_converted_weights_are_checked_likewise(name, value, message):
    check_ported(PORTED, "w")
    with pytest.raises(ValueError, match=f"the metadata in w .*{message}"):
        check_ported(with_value(PORTED, name, value), "w")


@pytest.mark.parametrize(
    ("name", "value"),
    [("model.name", "vgg17"), ("model.kwargs", {"widths": "ab"}), ("model.kwargs", {"hidden": {}}),
     ("model.kwargs", {"widths": [0.5, None]}), ("model.kwargs", {"dropout": [[]]})],
)  # fmt: skip
def test_a_network_that_cannot_be_made_is_an_error_with_its_file(tiny_run, tmp_path, name, value):
    variables, facts = load_weights(tiny_run)
    path = tmp_path / "w.safetensors"
    export_weights(path, variables, with_value(facts, name, value))
    with pytest.raises(ValueError, match=str(path)):
        _ = LoadedModel(path).model


def paths(tree, prefix=""):
    """Returns the dotted names of all fields in nested dictionaries and lists."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield f"{prefix}{key}"
        yield from paths(value, f"{prefix}{key}.")


JUNK = [None, ..., 0, -1, 1, 0.5, math.nan, math.inf, 10**400, True, "", "x", [], [1], {}, {"x": None}, [{}]]
NAMES = sorted(paths({key: value for key, value in FACTS.items() if key != "config"}))


@given(st.sampled_from(NAMES), st.sampled_from(JUNK))
@settings(max_examples=400, deadline=None, derandomize=True)
def test_what_is_accepted_can_be_used(name, value):
    facts = with_value(FACTS, name, value) if not (value is ... and name[-1].isdigit()) else FACTS
    try:
        check_network(facts, "w")
    except ValueError as error:
        assert "the metadata in w " in str(error)
        return
    leakage_policy.used_splits(facts | {"trained_data": facts["data"]})
    leakage_policy.inherit({"annotations": []}, facts)
    network_name("w", facts["model"])
    model_card = needed("fer_jax.inference.app.model_card", "app")
    model_card.describe(Held(facts))
    schemas = needed("fer_jax.inference.service.schemas", "serve")
    if score := facts.get("evaluation"):
        schemas.Evaluation(**score | {"selected": False})


class Held:
    """A network that has only metadata."""

    source, parameters, input_shape = "w", 1, (96, 96, 3)

    def __init__(self, metadata):
        self.metadata = metadata
