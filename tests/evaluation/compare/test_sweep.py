"""Tests the comparison of trials: metrics against scikit-learn, intervals against SciPy and by hand."""

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics

from fer_jax.evaluation.compare import sweep
from fer_jax.evaluation.metrics import calibration

SHARES = (0.14, 0.02, 0.14, 0.25, 0.17, 0.11, 0.17)


def predict(labels, strength, seed):
    """Returns probabilities [N, 7]; the label's grows with the strength."""
    logits = np.random.default_rng(seed).normal(0, 1, (len(labels), 7))
    logits[np.arange(len(labels)), labels] += strength
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).choice(7, 400, p=SHARES)


@pytest.fixture(scope="module")
def pair(labels):
    """Returns a run of the baseline and one of a better trial."""
    return {"baseline": [predict(labels, 1.0, 1)], "after": [predict(labels, 1.5, 2)]}


def test_figures_match_scikit_learn(labels):
    strengths = {"baseline": 1.0, "better": 1.6}
    runs = {name: [predict(labels, x, s) for s in (1, 2, 3)] for name, x in strengths.items()}
    result = sweep.compare(runs, labels, np.arange(400), resamples=50)
    for name, probs in runs.items():
        predicted = [p.argmax(axis=1) for p in probs]
        recalls = [metrics.recall_score(labels, p, average=None) for p in predicted]
        expected = {
            "accuracy": [metrics.accuracy_score(labels, p) for p in predicted],
            "macro_f1": [metrics.f1_score(labels, p, average="macro") for p in predicted],
            "worst_recall": [recall.min() for recall in recalls],
            "ece": [calibration.ece(p, labels) for p in probs],
        }
        for figure, values in expected.items():
            row = result[name][figure]
            np.testing.assert_allclose(row["values"], values, atol=1e-12)
            assert row["mean"] == pytest.approx(np.mean(values))
            assert row["std"] == pytest.approx(np.std(values, ddof=1))
    assert "difference" not in result["baseline"]["accuracy"]
    for figure, row in result["better"].items():
        assert row["difference"] == pytest.approx(row["mean"] - result["baseline"][figure]["mean"])


def test_a_class_without_images_is_ignored(labels):
    few = labels[labels != 1]
    probs = predict(few, 1.0, 5)
    row = sweep.compare({"baseline": [probs]}, few, np.arange(len(few)), resamples=2)["baseline"]
    present = [0, 2, 3, 4, 5, 6]
    recall = metrics.recall_score(few, probs.argmax(axis=1), labels=present, average=None)
    assert row["worst_recall"]["mean"] == pytest.approx(recall.min())
    f1 = metrics.f1_score(few, probs.argmax(axis=1), average="macro", zero_division=0)
    assert row["macro_f1"]["mean"] == pytest.approx(f1)
    assert row["accuracy"]["std"] is None


def test_the_interval_of_one_seed_is_scipys_paired_bootstrap(labels, pair):
    row = sweep.compare(pair, labels, np.arange(400), resamples=8000)["after"]["accuracy"]
    right = [(pair[name][0].argmax(axis=1) == labels).astype(float) for name in ("after", "baseline")]
    how = {"paired": True, "vectorized": True, "n_resamples": 8000, "method": "percentile", "rng": 0}
    difference = lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis)  # noqa: E731
    expected = scipy.stats.bootstrap(right, difference, **how).confidence_interval
    np.testing.assert_allclose(row["interval_95"], expected, atol=0.004)


def test_duplicates_count_as_one_draw(labels, pair):
    """Every image twice, in groups of two, gives the same interval as every image once."""
    twice = {name: [np.repeat(p, 2, axis=0) for p in probs] for name, probs in pair.items()}
    once = sweep.compare(pair, labels, np.arange(400))["after"]
    pairs = sweep.compare(twice, np.repeat(labels, 2), np.repeat(np.arange(400), 2) + 7)["after"]
    single = sweep.compare(twice, np.repeat(labels, 2), np.arange(800))["after"]
    for figure in sweep.FIGURES:
        np.testing.assert_allclose(pairs[figure]["interval_95"], once[figure]["interval_95"], atol=1e-9)
    widths = [np.ptp(r["accuracy"]["interval_95"]) for r in (single, once)]
    assert widths[0] == pytest.approx(widths[1] / np.sqrt(2), rel=0.1)


def test_the_interval_over_seeds_is_students(labels):
    """With all images in one group, only the seeds vary: a sample of two differences."""
    runs = {"baseline": [predict(labels, 1.0, 1), predict(labels, 1.0, 2)]}
    runs["after"] = [predict(labels, 1.5, 3), predict(labels, 1.6, 4)]
    result = sweep.compare(runs, labels, np.zeros(400, int))
    row = result["after"]["accuracy"]
    apart = np.subtract(row["values"], result["baseline"]["accuracy"]["values"])
    assert row["difference"] == pytest.approx(apart.mean())
    expected = scipy.stats.ttest_1samp(apart, 0).confidence_interval(0.95)
    assert min(expected) > -1 and max(expected) < 1
    np.testing.assert_allclose(row["interval_95"], expected)


def test_intervals_end_where_the_figure_does(labels):
    """For two very different seeds, Student's t with one degree of freedom would exceed [0, 1]."""
    runs = {"baseline": [predict(labels, 0.3, 1), predict(labels, 9.0, 2)]}
    runs["after"] = runs["baseline"][::-1]
    result = sweep.compare(runs, labels, np.zeros(400, int))
    row = result["baseline"]["accuracy"]
    low, high = scipy.stats.ttest_1samp(row["values"], 0).confidence_interval(0.95)
    assert low < 0 and high > 1 and row["mean_interval_95"] == [0, 1]
    apart = np.subtract(row["values"], row["values"][::-1])
    low, high = scipy.stats.ttest_1samp(apart, 0).confidence_interval(0.95)
    assert low < -1 and high > 1 and result["after"]["accuracy"]["interval_95"] == [-1, 1]


def test_seeds_and_images_together_widen_the_interval(labels):
    """Equals Welch's test of the seeds and a very large sample with the variance of the mean over images."""
    runs = {"baseline": [predict(labels, 1.0, s) for s in range(3)]}
    runs["after"] = [predict(labels, strength, 9 + s) for s, strength in enumerate((1.1, 1.5, 1.9))]
    both = sweep.compare(runs, labels, np.arange(400), resamples=6000)["after"]["accuracy"]
    right = {name: np.array([p.argmax(axis=1) == labels for p in of], float) for name, of in runs.items()}
    apart = right["after"] - right["baseline"]  # [seeds, images]
    error = apart.mean(axis=0).std() / np.sqrt(400)
    many = np.tile([-1.0, 1.0], 50_000) * error * np.sqrt(100_000)
    expected = scipy.stats.ttest_ind(apart.mean(axis=1), many, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(both["interval_95"], expected, rtol=0.03)


def test_trials_without_all_seeds_are_refused(labels, pair):
    with pytest.raises(ValueError, match="after has 1 runs, but baseline has 2: expected one per seed"):
        sweep.compare(pair | {"baseline": pair["baseline"] * 2}, labels, np.arange(400))


def test_the_picture_of_differences_shows_every_trial_in_every_figure(labels, tmp_path):
    runs = {"baseline": [predict(labels, 1.0, 1)], "with_mixup": [predict(labels, 3.0, 2)]}
    runs["worse"] = [predict(labels, 0.1, 3)]
    result = sweep.compare(runs, labels, np.arange(400), resamples=200)
    figure = sweep.plot_differences(result, tmp_path / "d.png")
    assert (tmp_path / "d.png").stat().st_size
    assert len(figure.axes) == len(sweep.FIGURES)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["with mixup", "worse"]
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    for point, name, color in zip(points, ("with_mixup", "worse"), ("C2", "C3"), strict=True):
        assert point.get_xdata()[0] == pytest.approx(100 * result[name]["accuracy"]["difference"])
        assert point.get_color() == color


@pytest.fixture(scope="module")
def ranking():
    """Returns three trials with 100, 160, and 130 of 200 images correct, with two identical seeds."""
    labels = np.arange(200) % 7
    runs = {}
    for name, right in (("x=1", 100), ("x=2", 160), ("x=3", 130)):
        probs = np.full((200, 7), 0.02)
        said = np.where(np.arange(200) < right, labels, (labels + 1) % 7)
        probs[np.arange(200), said] += 0.86
        runs[name] = [probs, probs]
    return sweep.compare(runs, labels, np.arange(200), baseline=None, resamples=500)


def test_without_a_baseline_trials_are_ranked_and_compared_with_the_best(ranking):
    assert list(ranking) == ["x=2", "x=3", "x=1"]
    assert [row["accuracy"]["mean"] for row in ranking.values()] == [0.8, 0.65, 0.5]
    low, high = ranking["x=2"]["accuracy"]["mean_interval_95"]
    # The binomial standard error of 0.8 over 200 images.
    assert (high - low) / 2 == pytest.approx(1.96 * (0.8 * 0.2 / 200) ** 0.5, rel=0.15)
    assert "difference" not in ranking["x=2"]["accuracy"]
    assert ranking["x=1"]["accuracy"]["difference"] == pytest.approx(-0.3)
    lines = sweep.result_tables(ranking, (0, 1), "x=2")
    rows = [line for line in lines if line.startswith("| x=")]
    assert rows[0].startswith(f"| x=2 | 80.00 ± 0.00 ({100 * low:.2f} to {100 * high:.2f}) |")
    assert [row[:9] for row in rows[3:]] == ["| x=3 | *", "| x=1 | *"] and "**-30.00 (" in rows[4]


def test_the_calibration_error_ranks_from_low_to_high(labels):
    runs = {name: [predict(labels, strength, 1)] for name, strength in (("a", 0.1), ("b", 2.0), ("c", 0.5))}
    result = sweep.compare(runs, labels, np.arange(400), baseline=None, rank_by="ece", resamples=2)
    means = [row["ece"]["mean"] for row in result.values()]
    assert means == sorted(means) and len(set(means)) == 3


def test_the_picture_of_a_ranking_has_a_panel_for_each_field_that_differs(ranking, tmp_path):
    trials = {name: {"data.x": name[-1], "same": "1", "kind": "ab"[i % 2]} for i, name in enumerate(ranking)}
    figure = sweep.plot_ranking(ranking, trials, tmp_path / "sweep.png", "accuracy")
    assert [axis.get_xlabel() for axis in figure.axes] == ["data.x", "kind"]
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["a", "b"]
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [point.get_xdata()[0] for point in points] == pytest.approx([1, 2, 0])
    assert [point.get_color() for point in points] == ["C3", "C0", "C0"]
    assert (tmp_path / "sweep.png").stat().st_size


def test_many_numbers_stand_on_an_axis_of_numbers(ranking, tmp_path):
    """The axis is logarithmic for a wide range, and trials without the field have no point."""
    row, numbers = ranking["x=2"], [str(2.0**i) for i in range(10)]
    trials = {number: {"rate": number} for number in numbers} | {"baseline": {}}
    figure = sweep.plot_ranking(dict.fromkeys(trials, row), trials, tmp_path / "sweep.png", "ece")
    (axis,) = figure.axes
    points = [line.get_xdata()[0] for line in axis.lines if line.get_marker() == "o"]
    assert points == list(map(float, numbers)) and axis.get_xscale() == "log"
