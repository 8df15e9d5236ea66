"""What may be said of a score follows from what the split had to do with the weights."""

import json
import re

import numpy as np
import pytest

from fer_jax.evaluation import leakage_policy

SELECTION = {"split": "validation", "metric": "accuracy", "value": 0.7, "step": 1200}


def data(**hashes):
    return {"name": "faces", "splits": {name: {"hash": found} for name, found in hashes.items()}}


TRAINED = data(train="t", validation="v")
HERE = data(train="t", validation="v", test="w")


def judge(split, here=HERE, selection=SELECTION, trained=TRAINED, copies=(0, 0, 0, 0)):
    facts = {"split": split, "data": here, "trained_data": trained, "selection": selection}
    return leakage_policy.assess(facts, None if copies is None else np.array(copies, np.int8))


@pytest.mark.parametrize(
    ("case", "trained", "selected", "headline", "note"),
    [
        ({"split": "test"}, False, False, "accuracy", "no part.*None of its images has a copy"),
        (
            {"split": "test", "copies": (0, 2, 1, 2)},
            False,
            False,
            "without_near",
            "2 of its images stand there pixel for pixel and 1 nearly so .*: the headline is the figure",
        ),
        ({"split": "test", "copies": None}, False, False, None, "No headline.*--training_data"),
        ({"split": "validation"}, False, True, None, "No headline: selected on this split.*optimistic"),
        ({"split": "train"}, True, False, None, "No headline: the model was trained on this split"),
        # The splits that were used, under other names.
        ({"split": "test", "here": data(train="x", test="v")}, False, True, None, "selected on this split"),
        ({"split": "test", "here": data(train="x", test="t")}, True, False, None, "trained on this split"),
        # Data of another origin, compared with those of the training.
        (
            {"split": "validation", "here": data(validation="y")},
            False,
            False,
            "accuracy",
            "`validation` had no",
        ),
        ({"split": "test", "selection": None}, False, False, "accuracy", "no part in the training\\."),
        # Weights that do not tell.
        ({"split": "test", "trained": {"name": "old"}}, None, None, None, "not known"),
        ({"split": "test", "trained": data(train="t")}, None, None, None, "not known"),
        ({"split": "test", "here": None}, None, None, None, "not known"),
    ],
)
def test_verdicts(case, trained, selected, headline, note):
    found = judge(**case)
    assert found["trained_on_this_split"] is trained
    assert found["selected_on_this_split"] is selected
    assert found["headline"] == headline
    assert re.search(note, found["note"])
    assert ("headline" in found["note"].lower()) == (headline != "accuracy")


def test_copies_are_counted():
    assert judge("test", copies=(0, 2, 1, 2))["copies"] == {"near": 1, "identical": 2}
    assert judge("test", copies=None)["copies"] is None


def test_splits_are_found_by_what_they_hold():
    wanted = ["t", "v", "gone"]
    assert leakage_policy.find_splits(wanted, data(train="v", test="t")) == {"t": "test", "v": "train"}
    assert leakage_policy.find_splits(wanted, data(train="z")) == {}


def test_weights_that_others_were_made_from_count():
    """Training B begins with the weights of A: what A has seen is nothing new to B."""
    first = {"data": TRAINED, "selection": SELECTION, "annotations": ["ferplus"]}
    second = leakage_policy.inherit(
        {"annotations": [], "trained_data": data(train="x", validation="y")}, first
    )
    assert second["annotations"] == ["ferplus"]
    for split, trained, selected in (
        ("train", True, False),
        ("validation", False, True),
        ("test", False, False),
    ):
        found = leakage_policy.assess(second | {"split": split, "data": HERE}, np.zeros(4, np.int8))
        assert (found["trained_on_this_split"], found["selected_on_this_split"]) == (trained, selected)
        assert (found["headline"] is None) == (split != "test")
    assert (
        "selected the weights that it began with"
        in leakage_policy.assess(second | {"split": "validation", "data": HERE}, np.zeros(4, np.int8))["note"]
    )
    # And so for the weights of a third training, on the data of the second.
    third = leakage_policy.inherit(
        {"annotations": [], "trained_data": data(train="z")}, second | {"data": data(train="x")}
    )
    assert {one.hash for one in leakage_policy.used_splits(third)} == {"z", "x", "t", "v"}
    # Weights of a parent that does not tell.
    unknown = leakage_policy.inherit({"annotations": [], "trained_data": TRAINED}, {})
    assert (
        leakage_policy.assess(unknown | {"split": "test", "data": HERE}, np.zeros(4, np.int8))["headline"]
        is None
    )


def test_scores_that_steer_a_training_have_a_part_in_its_last_weights():
    facts = {"trained_data": TRAINED, "data": HERE, "split": "validation", "selection": None}
    assert leakage_policy.assess(facts, np.zeros(4, np.int8))["headline"] == "accuracy"
    found = leakage_policy.assess(facts | {"steered_by": "validation"}, np.zeros(4, np.int8))
    assert found["selected_on_this_split"] and found["headline"] is None and "steered" in found["note"]


def test_ledger_counts_and_keeps(tmp_path):
    assert leakage_policy._append(tmp_path, {"accuracy": 0.5}) == 1
    assert leakage_policy._append(tmp_path, {"accuracy": 0.6}) == 2
    lines = (tmp_path / leakage_policy.LEDGER).read_text().splitlines()
    assert [json.loads(line)["accuracy"] for line in lines] == [0.5, 0.6]
    assert json.loads(lines[0])["time"].endswith("+00:00")
    assert leakage_policy._append(tmp_path / "missing", {}) is None
