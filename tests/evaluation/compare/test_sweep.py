"""What a search tries, and how it ranks."""

import numpy as np
import pytest

from fer_jax.evaluation.compare import sweep


def test_a_grid_is_every_combination():
    trials = sweep.grid({"optim.learning_rate": ["0.1", "0.2"], "model.name": ["a", "b"]})
    pairs = [(t["optim.learning_rate"], t["model.name"]) for t in trials]
    assert pairs == [("0.1", "a"), ("0.1", "b"), ("0.2", "a"), ("0.2", "b")]


def test_draws_lie_where_they_should_and_more_begin_alike():
    fields = {
        "u": sweep.Draw("uniform", ("-1", "3")),
        "l": sweep.Draw("log", ("0.001", "10")),
        "i": sweep.Draw("int", ("2", "4")),
        "c": sweep.Draw("choice", ("x", "y")),
    }
    trials = sweep.random(fields, 400, seed=3)
    assert trials[:5] == sweep.random(fields, 5, seed=3) != sweep.random(fields, 5, seed=4)
    uniform, log = (np.array([float(t[key]) for t in trials]) for key in "ul")
    assert -1 <= uniform.min() < -0.9 and 2.9 < uniform.max() <= 3 and abs(uniform.mean() - 1) < 0.2
    # Of four decades half lies below the middle one.
    assert 0.001 <= log.min() and log.max() <= 10 and abs((log < 0.1).mean() - 0.5) < 0.08
    assert {t["i"] for t in trials} == {"2", "3", "4"} and {t["c"] for t in trials} == {"x", "y"}


@pytest.mark.parametrize(
    "kind, values, message",
    [
        ("normal", ("0", "1"), "'normal' is no way to draw; there are: uniform, log, int, choice"),
        ("uniform", ("1",), "uniform needs two numbers, got '1'"),
        ("uniform", ("a", "b"), "uniform needs two numbers, got 'a b'"),
        ("uniform", ("2", "1"), "uniform 2 1: expected a low number and a higher one"),
        ("log", ("0", "1"), "log 0 1: expected a low number above 0"),
        ("uniform", ("0", "inf"), "uniform 0 inf: expected"),
        ("int", ("0.2", "0.8"), "int 0.2 0.8: there is no whole number"),
        ("choice", (), "choice needs values"),
    ],
)
def test_draws_that_cannot_be_are_refused(kind, values, message):
    with pytest.raises(ValueError, match=message):
        sweep.Draw(kind, values)


def test_rounding_keeps_to_the_bounds():
    draw = sweep.Draw("uniform", ("0.99991", "0.99996"))
    values = [float(draw.sample(np.random.default_rng(seed))) for seed in range(20)]
    assert min(values) >= 0.99991 and max(values) <= 0.99996


def test_every_trial_has_a_folder_of_its_own():
    trials = [
        {"optim.learning_rate": "0.1", "augment.mixup": "0.2"},
        {"optim.learning_rate": "0.2", "augment.mixup": "0.1"},
        {"model.kwargs.widths": "(4, 8)"},
        {"model.kwargs.widths": "(4,_8)"},
        {"a.x": "1", "b.x": "2"},
        {"c.x": "1", "b.x": "2"},
        {"init_from": "runs/" + 200 * "a"},
        {"init_from": "runs/" + 201 * "a"},
    ]
    names = [sweep.trial_name(trial) for trial in trials]
    assert names[0] == "mixup=0.2,learning_rate=0.1"
    assert sweep.trial_name(dict(reversed(trials[0].items()))) == names[0]
    assert len(set(names)) == len(names) and all("/" not in n and len(n) < 120 for n in names)


@pytest.fixture
def ranking():
    """Three trials on 200 images, of which 100, 160 and 130 are right, with two seeds alike."""
    labels = np.arange(200) % 7
    runs = {}
    for name, right in (("x=1", 100), ("x=2", 160), ("x=3", 130)):
        probs = np.full((200, 7), 0.02)
        said = np.where(np.arange(200) < right, labels, (labels + 1) % 7)
        probs[np.arange(200), said] += 0.86
        runs[name] = [probs, probs]
    return sweep.rank(runs, labels, np.arange(200), resamples=500)


def test_ranks_by_the_mean_with_intervals_and_differences_from_the_first(ranking):
    assert list(ranking) == ["x=2", "x=3", "x=1"]
    assert [row["accuracy"]["mean"] for row in ranking.values()] == [0.8, 0.65, 0.5]
    low, high = ranking["x=2"]["accuracy"]["mean_interval_95"]
    # The binomial standard error of 0.8 over 200 images.
    assert (high - low) / 2 == pytest.approx(1.96 * (0.8 * 0.2 / 200) ** 0.5, rel=0.15)
    assert "difference" not in ranking["x=2"]["accuracy"]
    assert ranking["x=1"]["accuracy"]["difference"] == pytest.approx(-0.3)
    trials = {name: {"data.x": name[-1]} for name in ranking}
    lines = sweep.table(ranking, trials)
    assert lines[0].startswith("| rank | data.x | accuracy |")
    assert lines[2].startswith("| 1 | 2 | 80.00 (") and "**-30.00 (" in lines[4]


def test_the_picture_has_a_panel_for_each_field_that_differs(ranking, tmp_path):
    trials = {name: {"data.x": name[-1], "same": "1", "kind": "ab"[i % 2]} for i, name in enumerate(ranking)}
    figure = sweep.plot(ranking, trials, tmp_path / "sweep.png", "accuracy")
    assert [axis.get_xlabel() for axis in figure.axes] == ["data.x", "kind"]
    assert [tick.get_text() for tick in figure.axes[1].get_xticklabels()] == ["a", "b"]
    assert (tmp_path / "sweep.png").stat().st_size
