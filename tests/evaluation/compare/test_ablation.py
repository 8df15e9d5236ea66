"""Recipes compared: figures against scikit-learn, intervals against SciPy and cases done by hand."""

import numpy as np
import pytest
import scipy.stats
from sklearn import metrics

from fer_jax.evaluation.compare import ablation

SHARES = (0.14, 0.02, 0.14, 0.25, 0.17, 0.11, 0.17)


def predict(labels, strength, seed):
    """Probabilities [N, 7] that know the label the better, the greater the strength."""
    logits = np.random.default_rng(seed).normal(0, 1, (len(labels), 7))
    logits[np.arange(len(labels)), labels] += strength
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).choice(7, 400, p=SHARES)


def ece_by_hand(probs, labels):
    total = 0.0
    for low in np.arange(15) / 15:
        inside = (probs.max(axis=1) > low) & (probs.max(axis=1) <= low + 1 / 15)
        if inside.any():
            right = (probs.argmax(axis=1) == labels)[inside].mean()
            total += inside.mean() * abs(right - probs.max(axis=1)[inside].mean())
    return total


def test_figures_are_scikit_learns(labels):
    strengths = {"baseline": 1.0, "better": 1.6}
    runs = {name: [predict(labels, x, s) for s in (1, 2, 3)] for name, x in strengths.items()}
    result = ablation.compare(runs, labels, np.arange(400), resamples=50)
    for name, probs in runs.items():
        predicted = [p.argmax(axis=1) for p in probs]
        recalls = [metrics.recall_score(labels, p, average=None) for p in predicted]
        expected = {
            "accuracy": [metrics.accuracy_score(labels, p) for p in predicted],
            "macro_f1": [metrics.f1_score(labels, p, average="macro") for p in predicted],
            "worst_recall": [recall.min() for recall in recalls],
            "ece": [ece_by_hand(p, labels) for p in probs],
        }
        for figure, values in expected.items():
            row = result[name][figure]
            np.testing.assert_allclose(row["values"], values, atol=1e-12)
            assert row["mean"] == pytest.approx(np.mean(values))
            assert row["std"] == pytest.approx(np.std(values, ddof=1))
    assert "difference" not in result["baseline"]["accuracy"]
    for figure, row in result["better"].items():
        assert row["difference"] == pytest.approx(row["mean"] - result["baseline"][figure]["mean"])


def test_a_class_without_images_is_left_out(labels):
    few = labels[labels != 1]
    probs = predict(few, 1.0, 5)
    row = ablation.compare({"baseline": [probs]}, few, np.arange(len(few)), resamples=2)["baseline"]
    here = [0, 2, 3, 4, 5, 6]
    recall = metrics.recall_score(few, probs.argmax(axis=1), labels=here, average=None)
    assert row["worst_recall"]["mean"] == pytest.approx(recall.min())
    assert row["macro_f1"]["mean"] == pytest.approx(
        metrics.f1_score(few, probs.argmax(axis=1), average="macro", zero_division=0)
    )
    assert row["accuracy"]["std"] is None


def test_the_interval_of_one_seed_is_scipys_paired_bootstrap(labels):
    before, after = predict(labels, 1.0, 1), predict(labels, 1.5, 2)
    runs = {"baseline": [before], "after": [after]}
    row = ablation.compare(runs, labels, np.arange(400), resamples=8000)["after"]["accuracy"]
    right = [(p.argmax(axis=1) == labels).astype(float) for p in (after, before)]
    expected = scipy.stats.bootstrap(
        right,
        lambda a, b, axis: a.mean(axis=axis) - b.mean(axis=axis),
        paired=True,
        vectorized=True,
        n_resamples=8000,
        method="percentile",
        rng=0,
    ).confidence_interval
    np.testing.assert_allclose(row["interval_95"], expected, atol=0.004)


def test_macro_f1s_interval_is_that_of_resampled_images(labels):
    """One resample after the other, scored by scikit-learn."""
    before, after = (predict(labels, *args).argmax(axis=1) for args in ((1.0, 1), (1.5, 2)))
    rng, apart = np.random.default_rng(3), []
    for _ in range(300):
        drawn = rng.integers(400, size=400)
        scores = [
            metrics.f1_score(labels[drawn], p[drawn], average="macro", zero_division=0)
            for p in (after, before)
        ]
        apart.append(scores[0] - scores[1])
    runs = {"baseline": [predict(labels, 1.0, 1)], "after": [predict(labels, 1.5, 2)]}
    row = ablation.compare(runs, labels, np.arange(400), resamples=4000)["after"]["macro_f1"]
    np.testing.assert_allclose(row["interval_95"], np.quantile(apart, [0.025, 0.975]), atol=0.012)


def test_twins_count_as_one_draw(labels):
    """Every image twice, as groups of two, tells no more than every image once."""
    runs = {"baseline": [predict(labels, 1.0, 1)], "after": [predict(labels, 1.5, 2)]}
    twice = {name: [np.repeat(p, 2, axis=0) for p in probs] for name, probs in runs.items()}
    once = ablation.compare(runs, labels, np.arange(400))["after"]
    pairs = ablation.compare(twice, np.repeat(labels, 2), np.repeat(np.arange(400), 2) + 7)["after"]
    single = ablation.compare(twice, np.repeat(labels, 2), np.arange(800))["after"]
    for figure in ablation.FIGURES:
        np.testing.assert_allclose(pairs[figure]["interval_95"], once[figure]["interval_95"], atol=1e-9)
    widths = [np.ptp(r["accuracy"]["interval_95"]) for r in (single, once)]
    assert widths[0] == pytest.approx(widths[1] / np.sqrt(2), rel=0.1)


def test_seeds_vary_by_hand(labels):
    """All images in one group: only the seeds vary, as a sample of two differences."""
    runs = {
        "baseline": [predict(labels, 1.0, 1), predict(labels, 1.0, 2)],
        "after": [predict(labels, 1.5, 3), predict(labels, 1.6, 4)],
    }
    result = ablation.compare(runs, labels, np.zeros(400, int))
    values = [np.array(result[name]["accuracy"]["values"]) for name in ("after", "baseline")]
    apart = values[0] - values[1]
    row = result["after"]["accuracy"]
    assert row["difference"] == pytest.approx(apart.mean())
    expected = scipy.stats.ttest_1samp(apart, 0).confidence_interval(0.95)
    assert min(expected) > -1 and max(expected) < 1
    np.testing.assert_allclose(row["interval_95"], expected)


def test_the_interval_of_a_mean_ends_where_the_figure_does(labels):
    """Two seeds that differ much: Student's t with one degree of freedom reaches below 0 and above 1."""
    runs = {"baseline": [predict(labels, 0.3, 1), predict(labels, 9.0, 2)]}
    runs["after"] = runs["baseline"][::-1]
    result = ablation.compare(runs, labels, np.zeros(400, int))
    row = result["baseline"]["accuracy"]
    low, high = scipy.stats.ttest_1samp(row["values"], 0).confidence_interval(0.95)
    assert low < 0 and high > 1 and row["mean_interval_95"] == [0, 1]
    apart = np.subtract(row["values"], row["values"][::-1])
    low, high = scipy.stats.ttest_1samp(apart, 0).confidence_interval(0.95)
    assert low < -1 and high > 1 and result["after"]["accuracy"]["interval_95"] == [-1, 1]


def test_seeds_and_images_together_widen_the_interval(labels):
    """As Welch's test of two samples: the seeds, and very many with the variance of a mean over images."""
    runs = {
        "baseline": [predict(labels, 1.0, s) for s in range(3)],
        "after": [predict(labels, strength, 9 + s) for s, strength in enumerate((1.1, 1.5, 1.9))],
    }
    both = ablation.compare(runs, labels, np.arange(400), resamples=6000)["after"]["accuracy"]
    right = {name: np.array([p.argmax(axis=1) == labels for p in of], float) for name, of in runs.items()}
    apart = right["after"] - right["baseline"]  # [seeds, images]
    error = apart.mean(axis=0).std() / np.sqrt(400)
    many = np.tile([-1.0, 1.0], 50_000) * error * np.sqrt(100_000)
    expected = scipy.stats.ttest_ind(apart.mean(axis=1), many, equal_var=False).confidence_interval(0.95)
    np.testing.assert_allclose(both["interval_95"], expected, rtol=0.03)


def test_recipes_without_all_seeds_are_refused(labels):
    runs = {"baseline": [predict(labels, 1.0, 1)] * 2, "after": [predict(labels, 1.0, 2)]}
    with pytest.raises(ValueError, match="after has 1 runs and baseline 2: expected one for each seed"):
        ablation.compare(runs, labels, np.arange(400))


def test_the_picture_shows_every_recipe_in_every_figure(labels, tmp_path):
    runs = {"baseline": [predict(labels, 1.0, 1)], "with_mixup": [predict(labels, 3.0, 2)]}
    runs["worse"] = [predict(labels, 0.1, 3)]
    result = ablation.compare(runs, labels, np.arange(400), resamples=200)
    figure = ablation.plot_differences(result, tmp_path / "d.png")
    assert (tmp_path / "d.png").stat().st_size
    assert len(figure.axes) == len(ablation.FIGURES)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["with mixup", "worse"]
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    for point, name, color in zip(points, ("with_mixup", "worse"), ("C2", "C3"), strict=True):
        assert point.get_xdata()[0] == pytest.approx(100 * result[name]["accuracy"]["difference"])
        assert point.get_color() == color
