"""Comparisons: tests against statsmodels, figures against scikit-learn, and what is compared with what."""

import csv
import itertools
import json
import pathlib

import numpy as np
import pytest
from helpers import random_case
from sklearn import metrics
from statsmodels.stats import contingency_tables, multitest

from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.compare import comparison_page, comparison_plots, model_results, significance

pytestmark = pytest.mark.drawn

SPLITS = {"train": {"hash": "t"}, "validation": {"hash": "v"}}
FACTS = {
    "model": {"name": "cnn_relu", "kwargs": {}},
    "parameters": 2_000_000,
    "emotions": list(EMOTIONS),
    "data": {"name": "faces", "splits": SPLITS},
    "trained_data": {"name": "faces", "splits": SPLITS},
    "selection": {"split": "validation", "metric": "accuracy", "value": 0.7, "step": 9},
    "split": "validation",
    "tta": "none",
}


def cost(milliseconds, hardware="a laptop"):
    quartiles = [0.9 * milliseconds, 1.2 * milliseconds]
    latency = {"milliseconds": milliseconds, "quartiles_milliseconds": quartiles, "hardware": hardware}
    return {"flops": 277_000_000, "latency": latency}


@pytest.fixture
def save(tmp_path):
    """Writes predictions, with facts as a report's or without as a plain CSV; where they are."""

    def write(name, probs, labels, facts=None, ids=None, names=EMOTIONS, groups=None, copies=None):
        ids = [f"face {i}" for i in range(len(probs))] if ids is None else ids
        table = predictions_file.Predictions(ids, probs, labels, list(names), groups, copies)
        if facts is None:
            predictions_file.write(tmp_path / f"{name}.csv", table)
            return tmp_path / f"{name}.csv"
        folder = tmp_path / name / "report"
        folder.mkdir(parents=True)
        predictions_file.write(folder / "predictions.csv", table)
        (folder / "report.json").write_text(json.dumps(facts))
        return tmp_path / name

    return write


def cases(count=3, images=300):
    labels = random_case(0, images)[1]
    rng = np.random.default_rng(5)
    result = []
    for i in range(count):
        logits = rng.normal(size=(images, 7)) + (1 + 0.3 * i) * np.eye(7)[labels]
        result.append(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))
    return result, labels


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (7, 7), (12, 25), (3, 40), (280, 220)])
def test_mcnemar_is_statsmodels(b, c):
    expected = contingency_tables.mcnemar([[500, b], [c, 90]], exact=True).pvalue
    assert significance.mcnemar(b, c) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_holm_is_statsmodels(seed):
    p = np.random.default_rng(seed).random(9) ** 4
    p[3] = p[4]
    expected = multitest.multipletests(p, method="holm")[1]
    np.testing.assert_allclose(significance.holm(p), expected, atol=1e-12)
    assert significance.holm([]) == []


def test_figures_pairs_and_intervals(save):
    probs, labels = cases()
    groups = np.arange(300) // 2
    paths = [save(f"run_{i}", p, labels, FACTS, groups=groups) for i, p in enumerate(probs)]
    found = significance.compare(model_results.load(paths))
    rows = {row["name"]: row for row in found["models"]}
    assert list(rows) == ["run_0", "run_1", "run_2"]
    for i, p in enumerate(probs):
        row = rows[f"run_{i}"]
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
    # The paired bootstrap, image pairs drawn by hand.
    rng, apart = np.random.default_rng(77), right[0].astype(float) - right[2]
    sums = apart.reshape(150, 2).sum(axis=1)
    drawn = sums[rng.integers(150, size=(4000, 150))].sum(axis=1) / 300
    np.testing.assert_allclose(
        pair["accuracy"]["interval_95"], np.quantile(drawn, [0.025, 0.975]), atol=0.012
    )
    assert pair["accuracy"]["difference"] == pytest.approx(apart.mean())


def test_a_model_and_itself_do_not_differ(save):
    (probs, *_), labels = cases(1)
    found = significance.compare(model_results.load([save(n, probs, labels, FACTS) for n in "ab"]))
    (pair,) = found["pairs"]
    assert pair["mcnemar"] == pair["mcnemar_holm"] == pair["accuracy"]["p"] == 1
    assert pair["accuracy"]["difference"] == 0 and pair["accuracy"]["interval_95"] == [0, 0]


def test_copies_are_left_out_for_all_models_alike(save):
    probs, labels = cases(3, 60)
    copies = np.zeros((2, 60), np.int8)
    copies[0, :5], copies[1, 5:12] = 2, 1
    paths = [save(f"r{i}", probs[i], labels, FACTS, copies=copies[i]) for i in range(2)]
    paths.append(save("plain", probs[2], labels))
    found = significance.compare(model_results.load(paths))
    assert found["copies"] == {"near": 7, "identical": 5}
    first, second, plain = found["models"]
    for row, p in ((first, probs[0]), (second, probs[1])):
        assert row["without_identical"]["num_examples"] == 55
        assert row["without_near"]["accuracy"] == np.mean((p.argmax(1) == labels)[12:])
    assert plain["without_identical"] is None and plain["without_near"] is None
    assert plain["notes"] == ["nothing is known of the training"]
    assert first["notes"] == ["selected on this split"]


def test_runs_that_differ_in_the_seed_are_summed_up(save):
    probs, labels = cases(4, 80)
    configs = [{"seed": s, "train": {"epochs": 2}, "data": {"dir": d}} for s, d in ((0, "a"), (1, "b"))]
    configs += [{"seed": 0, "train": {"epochs": 3}, "data": {"dir": "a"}}]
    names = ("mixup/seed_0", "mixup/seed_1", "other")
    paths = [
        save(n, p, labels, FACTS | {"config": c, "seed": c["seed"], "trained_data_hash": "h"})
        for n, p, c in zip(names, probs, configs, strict=False)
    ]
    found = significance.compare(model_results.load([*paths, save("plain", probs[3], labels)]))
    (group,) = found["seeds"]
    accuracies = [np.mean(p.argmax(1) == labels) for p in probs[:2]]
    assert (
        group["members"] == ["mixup/seed_0", "mixup/seed_1"]
        and group["name"] == "mixup"
        and group["seeds"] == [0, 1]
    )
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


def test_the_page_and_the_pictures(save, tmp_path):
    probs, labels = cases()
    summary = {"seconds": 7020}
    paths = [save(f"run_{i}", probs[i], labels, FACTS | {"cost": cost(2.0 + 3 * i)}) for i in range(2)]
    (paths[0] / "summary.json").write_text(json.dumps(summary))
    found = significance.compare(model_results.load([*paths, save("plain", probs[2], labels)]))
    comparison_page.write(tmp_path / "out", found)
    text = (tmp_path / "out" / "compare.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| run_0 |")]
    cells = [cell.strip() for cell in lines[0].strip("|").split("|")]
    accuracy = 100 * np.mean(probs[0].argmax(1) == labels)
    assert cells[1].startswith(f"{accuracy:.2f} (") and cells[3] == cells[4] == ""
    assert cells[6:] == ["2.00 M", "277", "2.00 (1.80 - 2.40)", "117 min", "selected on this split"]
    (plain,) = [line for line in text.splitlines() if line.startswith("| plain | ") and "nothing" in line]
    assert plain.endswith("|  |  |  |  | nothing is known of the training |")
    assert "Holm" in text and "![Accuracy and latency](latency.png)" in text
    for name in ("accuracy.png", "latency.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == found
    assert "3 pairs differ" in comparison_page.summary(found)[-1]
    alone = significance.compare(model_results.load(paths[:1]))
    assert comparison_page.summary(alone)[-1] == "one model: there is nothing to compare it with"
    for row in found["models"]:
        row["latency"] = None
    comparison_page.write(tmp_path / "out", found)
    assert not (tmp_path / "out" / "latency.png").exists()


@pytest.mark.parametrize("first, second", [(3.6, 4.2), (2.0, 9.0)])
def test_latencies_can_be_read_off_and_names_cover_no_point(first, second, save, tmp_path):
    probs, labels = cases()
    milliseconds = (first, second, second)
    paths = [
        save(f"run_{i}", probs[i], labels, FACTS | {"cost": cost(of)}) for i, of in enumerate(milliseconds)
    ]
    found = significance.compare(model_results.load(paths))
    for row in found["models"]:  # on one spot but for a hair
        row["accuracy"] = 0.5 + row["accuracy"] / 1000
    figure = comparison_plots.plot_pareto(found, tmp_path / "latency.png")
    (axis,) = figure.axes
    low, high = axis.get_xlim()
    ticks = [*axis.xaxis.get_major_ticks(), *axis.xaxis.get_minor_ticks()]
    assert sum(low <= t.get_loc() <= high and t.label1.get_text() != "" for t in ticks) >= 3
    points = [
        axis.transData.transform((of, 100 * row["accuracy"]))
        for of, row in zip(milliseconds, found["models"], strict=True)
    ]
    boxes = [text.get_window_extent() for text in axis.texts]
    assert len(boxes) == 3
    assert not any(box.contains(*point) for box in boxes for point in points)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


# --- what is compared with what ---


def dataset(labels, count=None):
    ids = [f"face {i}" for i in range(len(labels))]
    return model_results.Split(ids, labels, np.arange(len(labels)), lambda: np.zeros(len(labels), np.int8))


def plain_csv(path, probs, ids, names=EMOTIONS):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["id", *names], *([i, *p] for i, p in zip(ids, probs, strict=True))])
    return path


def test_a_plain_file_in_another_order_of_rows_and_columns(save, tmp_path):
    (probs, others), labels = cases(2, 40)
    ours = save("ours", probs, labels, FACTS)
    rows, columns = np.random.default_rng(0).permutation(40), [6, 2, 1, 0, 5, 4, 3]
    path = plain_csv(
        tmp_path / "keras.csv",
        others[rows][:, columns],
        [f"face {i}" for i in rows],
        [EMOTIONS[i] for i in columns],
    )
    found = model_results.load([ours, path], dataset(labels))
    assert [c.name for c in found] == ["ours", "keras"]
    np.testing.assert_array_equal(found[1].predictions.probs, others)
    np.testing.assert_array_equal(found[1].predictions.labels, labels)
    assert found[1].predictions.copies.tolist() == [0] * 40


def test_contempt_is_ruled_out_where_not_all_know_it(save):
    (probs, others), labels = cases(2, 40)
    eight = np.column_stack([0.6 * others, np.full(40, 0.4)])
    paths = [save("seven", probs, labels, FACTS)]
    paths.append(save("eight", eight, labels, FACTS, names=[*EMOTIONS, "contempt"]))
    found = model_results.load(paths)
    np.testing.assert_allclose(found[1].predictions.probs, others, atol=1e-12)
    assert found[1].notes == ["contempt ruled out, the other probabilities renormalised"]
    assert model_results.load(paths[1:])[0].predictions.probs.shape == (40, 8)


def test_contempt_as_a_label_that_one_does_not_know(save):
    (probs, others), labels = cases(2, 40)
    eight = np.column_stack([0.6 * others, np.full(40, 0.4)])
    paths = [save("eight", eight, np.append(labels[:39], 7), FACTS, names=[*EMOTIONS, "contempt"])]
    paths.append(save("seven", probs, labels, FACTS))
    with pytest.raises(ValueError, match=r"seven/report/predictions.csv, row 41: face 39 has the label"):
        model_results.load(paths)


def test_other_images(save):
    (probs, others), labels = cases(2, 40)
    ours = save("ours", probs, labels, FACTS)
    theirs = save("theirs", others, labels, ids=[*(f"face {i}" for i in range(38)), "x", "y"])
    with pytest.raises(ValueError) as error:
        model_results.load([ours, theirs])
    message = str(error.value)
    assert "2 images (face 38, face 39) are only in the latter, 2 images (x, y) only in the former" in message
    assert "theirs.csv" in message and "on the same images" in message


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda ids, labels: ids.__setitem__(3, "nobody"), "row 5: the dataset has no image 'nobody'"),
        (lambda ids, labels: ids.pop(), "lacks 1 images (face 39) of the dataset's split"),
        (lambda ids, labels: labels.__setitem__(2, (labels[2] + 1) % 7), "row 4: face 2 has the label"),
    ],
)
def test_a_file_that_does_not_fit_the_dataset(save, change, expected):
    (probs,), labels = cases(1, 40)
    ids, wrong = [f"face {i}" for i in range(40)], labels.copy()
    change(ids, wrong)
    path = save("theirs", probs[: len(ids)], wrong[: len(ids)], ids=ids)
    with pytest.raises(ValueError) as error:
        model_results.load([path], dataset(labels))
    assert expected in str(error.value) and str(path) in str(error.value)


def test_labels_that_nothing_tells(save):
    (probs,), _ = cases(1, 40)
    with pytest.raises(ValueError, match=r"theirs.csv has no labels: give it a column label, .*--data"):
        model_results.load([save("theirs", probs, None)])


def test_nothing_there_twice_and_damaged(save, tmp_path):
    (probs,), labels = cases(1, 40)
    run = save("ours", probs, labels, FACTS)
    with pytest.raises(FileNotFoundError, match="no predictions at .*nothing: expected a run's directory"):
        model_results.load([tmp_path / "nothing"])
    (tmp_path / "best.safetensors").touch()
    with pytest.raises(ValueError, match="best.safetensors holds weights, not predictions: give the --out"):
        model_results.load([run, tmp_path / "best.safetensors"])
    with pytest.raises(ValueError, match="is given twice"):
        model_results.load([run, run / "report"])
    (run / "report" / "report.json").write_text("{")
    with pytest.raises(ValueError, match=r"report.json or what belongs to it is damaged"):
        model_results.load([run])


def test_a_run_given_twice_is_one_seed(save):
    probs, labels = cases()
    paths = []
    for name, seed, p in zip(("a", "b", "again"), (0, 1, 0), (probs[0], probs[1], probs[0]), strict=True):
        config = {"seed": seed, "train": {"epochs": 2}, "data": {"dir": "x"}}
        paths.append(
            save(name, p, labels, FACTS | {"config": config, "seed": seed, "trained_data_hash": "h"})
        )
    (group,) = significance.compare(model_results.load(paths))["seeds"]
    assert group["members"] == ["a", "b"] and group["seeds"] == [0, 1]
    assert group["accuracy"]["values"] == pytest.approx([(p.argmax(1) == labels).mean() for p in probs[:2]])


def test_paths_that_say_the_same_are_named_in_full():
    ends = "/out/keras/predictions.csv", "/out/keras.csv", "/out/cnn/predictions.csv"
    assert model_results.names([pathlib.Path(end) for end in ends]) == [*ends[:2], "out/cnn"]


def test_names_are_as_long_as_they_must_be(tmp_path):
    ends = (
        "a/cnn/report/predictions.csv",
        "b/cnn/report/predictions.csv",
        "b/keras.csv",
        "r/cnn/predictions.csv.gz",
    )
    found = model_results.names([tmp_path / end for end in ends])
    assert found == ["a/cnn", "b/cnn", "b/keras", "r/cnn"]
    assert model_results.names([tmp_path / "cnn" / "report" / "predictions.csv", tmp_path / "k.csv"]) == [
        "cnn",
        "k",
    ]
