"""Tests comparisons: p-values against statsmodels, metrics against scikit-learn, and the page."""

import dataclasses
import itertools
import json
from unittest import mock

import numpy as np
import pytest
from helpers import random_case, report_metadata
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from statsmodels.stats import contingency_tables, multitest

from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.compare import comparison_page, comparison_plots, significance
from fer_jax.evaluation.compare.model_results import ModelResult

METADATA = report_metadata()
derandomized = settings(max_examples=60, deadline=None, derandomize=True)


def cost(milliseconds, hardware="a laptop"):
    quartiles = [0.9 * milliseconds, 1.2 * milliseconds]
    latency = {"milliseconds": milliseconds, "quartiles_milliseconds": quartiles, "hardware": hardware}
    return {"flops": 277_000_000, "latency": latency}


def cases(count=3, images=300):
    labels = random_case(0, images)[1]
    rng = np.random.default_rng(5)
    logits = [rng.normal(size=(images, 7)) + (1 + 0.3 * i) * np.eye(7)[labels] for i in range(count)]
    return [np.exp(x) / np.exp(x).sum(axis=1, keepdims=True) for x in logits], labels


def model(name, probs, labels, groups=None, copies=None, metadata=METADATA, **more):
    ids = [f"face {i}" for i in range(len(probs))]
    found = predictions_file.Predictions(ids, probs, labels, list(EMOTIONS), groups, copies)
    return ModelResult(name, name, found, metadata | more)


@derandomized
@given(st.integers(0, 300), st.integers(0, 300))
def test_mcnemar_is_statsmodels(b, c):
    expected = contingency_tables.mcnemar([[500, b], [c, 90]], exact=True).pvalue
    assert significance.mcnemar(b, c) == pytest.approx(expected if b + c else 1, abs=1e-9)


@derandomized
@given(st.lists(st.floats(0, 1) | st.sampled_from([1e-5, 0.01]), min_size=1, max_size=9))
def test_holm_is_statsmodels(p):
    with mock.patch("gc.collect"):  # called by multipletests, and slow in a large process
        expected = multitest.multipletests(p, method="holm")[1]
    np.testing.assert_allclose(significance.holm(p), expected, atol=1e-12)


def test_figures_pairs_and_intervals():
    probs, labels = cases()
    groups = np.arange(300) // 2
    found = significance.compare([model(f"run_{i}", p, labels, groups) for i, p in enumerate(probs)])
    rows = {row["name"]: row for row in found["models"]}
    assert list(rows) == ["run_0", "run_1", "run_2"]
    for row, p in zip(rows.values(), probs, strict=True):
        assert row["accuracy"] == pytest.approx(metrics.accuracy_score(labels, p.argmax(1)))
        assert row["macro_f1"] == pytest.approx(metrics.f1_score(labels, p.argmax(1), average="macro"))
        assert row["interval_95"]["accuracy"][0] < row["accuracy"] < row["interval_95"]["accuracy"][1]
    assert [(row["first"], row["second"]) for row in found["pairs"]] == list(itertools.combinations(rows, 2))
    pair = found["pairs"][1]
    right = [p.argmax(1) == labels for p in probs]
    table = [[(right[0] & right[2]).sum(), (right[0] & ~right[2]).sum()],
             [(~right[0] & right[2]).sum(), (~right[0] & ~right[2]).sum()]]  # fmt: skip
    assert pair["mcnemar"] == pytest.approx(contingency_tables.mcnemar(table).pvalue, abs=1e-9)
    assert (pair["only_first"], pair["only_second"]) == (table[0][1], table[1][0])
    # The paired bootstrap, with resamples drawn by hand.
    rng, apart = np.random.default_rng(77), right[0].astype(float) - right[2]
    sums = apart.reshape(150, 2).sum(axis=1)
    drawn = sums[rng.integers(150, size=(4000, 150))].sum(axis=1) / 300
    interval = pair["accuracy"]["interval_95"]
    np.testing.assert_allclose(interval, np.quantile(drawn, [0.025, 0.975]), atol=0.012)
    assert pair["accuracy"]["difference"] == pytest.approx(apart.mean())
    # A model does not differ from itself.
    (pair,) = significance.compare([model(name, probs[0], labels) for name in "ab"])["pairs"]
    assert pair["mcnemar"] == pair["mcnemar_holm"] == pair["accuracy"]["p"] == 1
    assert pair["accuracy"]["difference"] == 0 and pair["accuracy"]["interval_95"] == [0, 0]


def test_copies_are_left_out_for_all_models_alike():
    probs, labels = cases(3, 60)
    copies = np.zeros((2, 60), np.int8)
    copies[0, :5], copies[1, 5:12] = 2, 1
    models = [model(f"r{i}", probs[i], labels, copies=copies[i]) for i in range(2)]
    found = significance.compare([*models, model("plain", probs[2], labels, metadata={})])
    assert found["copies"] == {"near": 7, "identical": 5}
    first, second, plain = found["models"]
    for row, p in ((first, probs[0]), (second, probs[1])):
        assert row["without_identical"]["num_examples"] == 55
        assert row["without_near"]["accuracy"] == np.mean((p.argmax(1) == labels)[12:])
    assert plain["without_identical"] is None and plain["without_near"] is None
    assert plain["notes"] == ["training unknown"]
    assert first["notes"] == ["selected on this split"]


def test_runs_that_differ_in_the_seed_are_summed_up_once_each():
    probs, labels = cases(4, 80)
    models = [model("plain", probs[3], labels, metadata={})]
    for name, p, seed, epochs, folder in (
        ("mixup/seed_0", 0, 0, 2, "a"),
        ("mixup/seed_1", 1, 1, 2, "b"),
        ("other", 2, 0, 3, "a"),
        ("again", 0, 0, 2, "a"),
    ):
        config = {"seed": seed, "train": {"epochs": epochs}, "data": {"dir": folder}}
        models.append(model(name, probs[p], labels, config=config, seed=seed))
    (group,) = significance.compare(models)["seeds"]
    accuracies = [np.mean(p.argmax(1) == labels) for p in probs[:2]]
    expected = {"members": ["mixup/seed_0", "mixup/seed_1"], "name": "mixup", "seeds": [0, 1]}
    assert {key: group[key] for key in expected} == expected
    assert group["accuracy"]["values"] == accuracies
    assert group["accuracy"]["mean"] == pytest.approx(np.mean(accuracies))
    assert group["accuracy"]["std"] == pytest.approx(np.std(accuracies, ddof=1))


def test_the_front():
    def row(name, accuracy, milliseconds, hardware="x"):
        latency = {"milliseconds": milliseconds, "hardware": hardware} if milliseconds else None
        return {"name": name, "accuracy": accuracy, "latency": latency}

    rows = [row("slow", 0.8, 9), row("beaten", 0.7, 5), row("fast", 0.6, 1), row("good", 0.75, 4),
            row("equal", 0.75, 4.5), row("unknown", 0.9, None), row("far", 0.5, 1, "y")]  # fmt: skip
    assert significance.pareto_front(rows) == {"x": ["fast", "good", "slow"], "y": ["far"]}


@pytest.mark.drawn
def test_the_page_and_the_pictures(tmp_path):
    probs, labels = cases()
    run = {"seconds": 7020}
    models = [model(f"run_{i}", probs[i], labels, cost=cost(2.0 + 3 * i), run=run) for i in range(2)]
    found = significance.compare([*models, model("a|b<i>", probs[2], labels, metadata={})])
    comparison_page.write(tmp_path, found)
    text = (tmp_path / "compare.md").read_text()
    (line, *_) = [line for line in text.splitlines() if line.startswith("| run_0 |")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    accuracy = 100 * np.mean(probs[0].argmax(1) == labels)
    assert cells[1].startswith(f"{accuracy:.2f} (") and cells[3] == cells[4] == ""
    assert cells[6:] == ["2.00 M", "277", "2.00 (1.80 - 2.40)", "117 min", "selected on this split"]
    (plain,) = [line for line in text.splitlines() if line.endswith("| training unknown |")]
    assert plain.startswith("| a\\|b\\<i> | ") and "|  |  |  |  | training unknown" in plain
    apart = 100 * found["pairs"][0]["accuracy"]["difference"]
    assert f"| {apart:+.2f} (" in text.replace("**", "") and f"| {-apart:+.2f} (" in text.replace("**", "")
    assert "Holm" in text and "![Accuracy and latency](latency.png)" in text
    for name in ("accuracy.png", "latency.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "compare.json").read_text()) == found
    assert "3 pairs differ" in comparison_page.summary(found)[-1]
    alone = significance.compare([dataclasses.replace(models[0], metadata=METADATA)])
    assert comparison_page.summary(alone)[-1] == "only one model: nothing to compare"
    comparison_page.write(tmp_path, alone)
    assert not (tmp_path / "latency.png").exists()


@pytest.mark.drawn
@pytest.mark.parametrize("first, second", [(3.6, 4.2), (2.0, 9.0)])
def test_latencies_can_be_read_off_and_names_cover_no_point(first, second, tmp_path):
    probs, labels = cases()
    milliseconds = (first, second, second)
    models = [model(f"run_{i}", probs[i], labels, cost=cost(of)) for i, of in enumerate(milliseconds)]
    found = significance.compare(models)
    for row in found["models"]:  # almost at the same position
        row["accuracy"] = 0.5 + row["accuracy"] / 1000
    figure = comparison_plots.plot_pareto(found, tmp_path / "latency.png")
    (axis,) = figure.axes
    low, high = axis.get_xlim()
    ticks = [*axis.xaxis.get_major_ticks(), *axis.xaxis.get_minor_ticks()]
    assert sum(low <= t.get_loc() <= high and t.label1.get_text() != "" for t in ticks) >= 3
    places = [(of, 100 * row["accuracy"]) for of, row in zip(milliseconds, found["models"], strict=True)]
    points = axis.transData.transform(places)
    boxes = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) == 3
    assert not any(box.contains(*point) for box in boxes for point in points)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
