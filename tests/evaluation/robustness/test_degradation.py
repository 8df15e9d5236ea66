"""Tests robustness: metrics by hand, the report, and the command from weights to figures."""

import json

import numpy as np
import pytest
from helpers import rows_of, save_empty, script
from matplotlib.figure import Figure
from PIL import Image

from fer_jax.data.dataset import read
from fer_jax.evaluation.robustness import degradation, robustness_plots
from fer_jax.evaluation.robustness.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from fer_jax.pretrained.loaded_model import LoadedModel

pytestmark = pytest.mark.drawn

KEYS = [degradation.condition(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]


def predictions(hits, labels):
    """Returns probabilities that are correct where `hits` [N] is true."""
    predicted = np.where(hits, labels, (labels + 1) % 7)
    return np.full((len(labels), 7), 0.05) + 0.65 * np.eye(7)[predicted]


def test_figures_by_hand():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 60)
    hits = {key: rng.random(60) < 0.6 for key in KEYS} | {degradation.CLEAN: rng.random(60) < 0.9}
    found = degradation.figures({key: predictions(hit, labels) for key, hit in hits.items()}, labels, None)
    assert found["num_examples"] == 60
    assert found["clean"]["accuracy"] == pytest.approx(hits["clean"].mean())
    for name, of in found["corruptions"].items():
        accuracies = [hits[degradation.condition(name, s)].mean() for s in SEVERITIES]
        assert [figure["accuracy"] for figure in of["severities"]] == pytest.approx(accuracies)
        assert [figure["level"] for figure in of["severities"]] == list(CORRUPTIONS[name].levels)
        assert of["mean"]["value"] == pytest.approx(np.mean(accuracies))
        assert of["kept"]["value"] == pytest.approx(np.mean(accuracies) / hits["clean"].mean())
        for figure, key in [(f, "accuracy") for f in of["severities"]] + [(of["mean"], "value")]:
            low, high = figure["interval_95"]
            assert low < figure[key] < high
    everything = np.mean([hits[key] for key in KEYS], axis=0)  # of each image
    mean = found["mean_corruption_accuracy"]
    assert mean["value"] == pytest.approx(everything.mean())
    # The bootstrap of the mean over images, by its standard error.
    low, high = mean["interval_95"]
    assert high - low == pytest.approx(2 * 1.96 * everything.std() / np.sqrt(60), rel=0.1)


def test_copies_are_drawn_together():
    """Each image six times gives the same interval as each image once."""
    labels = np.arange(42) % 7
    hits = np.random.default_rng(0).random((len(KEYS) + 1, 42)) < 0.6
    conditions = [degradation.CLEAN, *KEYS]
    single = {key: predictions(hit, labels) for key, hit in zip(conditions, hits, strict=True)}
    copies = {key: np.repeat(probs, 6, axis=0) for key, probs in single.items()}
    found = degradation.figures(copies, np.repeat(labels, 6), np.repeat(np.arange(42), 6))
    expected = degradation.figures(single, labels, None)
    for key in ("mean_corruption_accuracy", "kept"):
        assert found[key]["value"] == pytest.approx(expected[key]["value"])
        assert found[key]["interval_95"] == pytest.approx(expected[key]["interval_95"])


def test_a_model_that_never_wavers_keeps_everything():
    """Clean and corrupted images are resampled together, so the relative accuracy does not vary."""
    labels = np.arange(70) % 7
    probs = predictions(np.random.default_rng(0).random(70) < 0.7, labels)
    found = degradation.figures(dict.fromkeys([degradation.CLEAN, *KEYS], probs), labels, None)
    assert found["kept"]["value"] == pytest.approx(1)
    assert found["kept"]["interval_95"] == pytest.approx([1, 1])
    probs = predictions(np.zeros(70, bool), labels)
    none = degradation.figures(dict.fromkeys([degradation.CLEAN, *KEYS], probs), labels, None)
    assert none["kept"]["value"] == 0 and none["kept"]["interval_95"] == [0, 0]


def test_everything_is_predicted_once_and_a_second_call_resumes(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
    seen, conditions = [], [degradation.CLEAN, *KEYS]

    def predict(images):
        seen.append(images[np.arange(5)[::-1]][::-1])  # from any directory
        if len(seen) == 4:
            raise KeyboardInterrupt
        return np.random.default_rng(len(seen)).dirichlet(np.ones(7), 5)

    def predict_all(what="these weights"):
        keep = degradation.keep_for(tmp_path / "keep", what)
        numbers = np.arange(10, 15)
        return degradation.predict_all(predict, images, numbers=numbers, seed=3, keep=keep)

    with pytest.raises(KeyboardInterrupt):
        predict_all()
    found = predict_all()
    assert list(found) == conditions and len(seen) == len(conditions) + 1
    del seen[3]
    np.testing.assert_array_equal(seen[0], images)
    expected = corrupt(images, "rotation", 4, seed=3, numbers=range(10, 15))
    np.testing.assert_array_equal(seen[conditions.index("rotation/4")], expected)
    (tmp_path / "keep" / "rotation_4.npy").write_bytes(b"")  # damaged: predicted again
    again = predict_all()
    assert len(seen) == len(conditions) + 1
    del seen[-1], again["rotation/4"]
    for key in again:
        np.testing.assert_array_equal(found[key], again[key])
    predict_all("other weights")
    assert len(seen) == 2 * len(conditions)


def run(tiny_data, out, *flags):
    return script("robustness").main([*map(str, flags), "--data", str(tiny_data), "--out", str(out)])


@pytest.fixture(scope="module")
def report(tiny_run, tiny_data, tmp_path_factory):
    out = tmp_path_factory.mktemp("robustness")
    assert run(tiny_data, out, "--workdir", tiny_run, "--batch_size", 16) == 0
    return out, json.loads((out / "robustness.json").read_text())


def test_the_command_writes_a_report(report, tiny_run, tiny_data):
    out, found = report
    assert found["num_examples"] == 28 and found["split_size"] == 28 and found["split"] == "validation"
    assert found["model"]["name"] == "cnn_relu" and found["unit"] == "groups of identical images"
    assert found["data_hash"] == read.read_manifest(tiny_data)["content_hash"]
    # The accuracy without corruption equals that of fer-jax evaluate, and so does one with.
    faces, trained = read.load(tiny_data, "validation"), LoadedModel(tiny_run)
    hits = trained.predict(faces.images, progress=False).argmax(axis=1) == faces.labels
    assert found["clean"]["accuracy"] == pytest.approx(hits.mean())
    darker = np.clip(faces.images.astype(int) - 51, 0, 255).astype(np.uint8)
    hits = trained.predict(darker, progress=False).argmax(axis=1) == faces.labels
    assert found["corruptions"]["darker"]["severities"][1]["accuracy"] == pytest.approx(hits.mean())
    rows = rows_of(out / "robustness.csv")
    assert [f"{row['corruption']}/{row['severity']}" for row in rows] == ["clean/0", *KEYS]
    jpeg = found["corruptions"]["jpeg"]
    accuracies = [of["accuracy"] for of in jpeg["severities"]]
    assert float(rows[1 + KEYS.index("jpeg/3")]["accuracy"]) == pytest.approx(accuracies[2])
    page = (out / "robustness.md").read_text()
    cells = " | ".join(f"{value:.3f}" for value in [*accuracies, jpeg["mean"]["value"]])
    assert f"| JPEG | {cells} |" in page
    assert page.startswith("# cnn_relu on corrupted faces: ")
    assert "**No headline: selected on this split." in page
    assert "28 images of `validation` with labels `given`." in page
    for picture in ("robustness_summary.png", "robustness_curves.png", "corruptions.png"):
        assert f"]({picture})" in page
        with Image.open(out / picture) as image:
            assert np.asarray(image.convert("L")).std() > 5


@pytest.fixture
def undrawn(monkeypatch):
    monkeypatch.setattr(Figure, "savefig", save_empty)


def test_the_command_takes_a_part_and_says_so(undrawn, tiny_data, tmp_path, monkeypatch, capsys):
    kept = []

    def predict_all(predict, images, *, numbers, seed, keep):
        kept.append(numbers)
        return dict.fromkeys([degradation.CLEAN, *KEYS], predict(images))

    monkeypatch.setattr(degradation, "predict_all", predict_all)
    assert run(tiny_data, tmp_path, "--checkpoint", "cnn_250k", "--limit", 14) == 0
    labels = read.load(tiny_data, "validation").labels[kept[0]]
    assert np.bincount(labels, minlength=7).tolist() == [2] * 7
    assert "cnn_250k on 14 of 28 faces" in capsys.readouterr().out
    page = (tmp_path / "robustness.md").read_text()
    assert page.startswith("# cnn_250k on corrupted faces: ")
    assert "14 images of `validation` with labels `given`, a stratified sample of its 28" in page


def test_the_command_complains(tiny_run, tiny_data, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(tiny_data, tmp_path / "file" / "out", "--workdir", tiny_run) == 2
    with pytest.raises(SystemExit):
        run(tiny_data, tmp_path, "--workdir", tiny_run, "--limit", 0)
    message = capsys.readouterr().err
    assert "give another --out" in message and "'0': expected int, 1 to 1e+09" in message


def test_curves_and_bars_are_the_figures(undrawn, report, tmp_path):
    _, found = report
    figure = robustness_plots.plot_curves(found, tmp_path / "curves.png")
    for axis, (name, of) in zip(figure.axes, found["corruptions"].items(), strict=False):
        assert axis.get_title().startswith(CORRUPTIONS[name].title)
        (curve,) = [line for line in axis.lines if len(line.get_xdata()) == 6]
        expected = [found["clean"]["accuracy"], *(f["accuracy"] for f in of["severities"])]
        np.testing.assert_allclose(curve.get_ydata(), expected)
    figure = robustness_plots.plot_summary(found, tmp_path / "summary.png")
    (axis,) = figure.axes
    by_title = {CORRUPTIONS[name].title: of["mean"]["value"] for name, of in found["corruptions"].items()}
    names = [text.get_text() for text in axis.get_yticklabels()]
    widths = [bar.get_width() for bar in axis.patches]
    assert widths == [by_title[name] for name in names] == sorted(by_title.values())
