"""Tests that README.md and RESULTS.md agree with the stored predictions."""

import gzip
import json
import shutil

import numpy as np
import pytest
from helpers import ROOT, program, random_case, report_metadata

from fer_jax.data.emotions import EMOTIONS
from fer_jax.evaluation import predictions_file
from fer_jax.evaluation.compare import model_results, result_store, results_page
from fer_jax.evaluation.robustness.corruptions import CORRUPTIONS


def test_readme_and_results_page_are_what_the_stored_results_say(capsys):
    assert program("scripts/results.py").main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    "folder", result_store.folders(ROOT / results_page.FOLDER), ids=lambda path: path.name
)
def test_stored_results_are_small_and_name_no_machine(folder):
    assert (folder / model_results.STORED).stat().st_size < 200_000
    metadata = json.loads((folder / model_results.METADATA).read_text())
    assert '"/' not in json.dumps(metadata)
    assert all(metadata["run"][key] for key in ("command", "commit", "hardware", "seconds"))


METADATA = report_metadata(accuracy=0.123, preprocess={"image_size": 64})  # the first is not stored
LABELS = random_case(0, 120)[1]


def accuracy(seed):
    return 100 * np.mean(random_case(seed, 120)[0].argmax(1) == LABELS)


def write_run(folder, seed, prefix="face"):
    ids = [f"{prefix} {i}" for i in range(120)]
    of_images = (random_case(seed, 120)[0], LABELS, list(EMOTIONS), np.arange(120), np.zeros(120, np.int8))
    (folder / "report").mkdir(parents=True)
    predictions_file.write(
        folder / "report" / "predictions.csv", predictions_file.Predictions(ids, *of_images)
    )
    (folder / "report" / "report.json").write_text(json.dumps(METADATA))
    (folder / "summary.json").write_text(json.dumps({"seconds": 3600.0}))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Returns a folder with two results, one named like a bundled network, a README, and generated pages."""
    root = tmp_path_factory.mktemp("results")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fer_jax.evaluation.report.report.draw_figures", lambda *_: None)
        for seed, name in enumerate(("cnn_64", "other")):
            run = {"command": "python -m x", "commit": "abc", "hardware": "a laptop"}
            result_store.store(write_run(root / "runs" / name, seed), root / "results" / name, run)
        (root / "README.md").write_text(
            f"# It\n\n{results_page.BEGIN}\n| cnn_64 | 99.99 |\n{results_page.END}\n\nMore.\n"
        )
        assert program("scripts/results.py").main(["--root", str(root), "--out", str(root / "out")]) == 0
    return root


@pytest.fixture
def root(made, tmp_path):
    """Returns a copy of `made`."""
    return shutil.copytree(made, tmp_path / "root")


@pytest.fixture
def store(root, capsys):
    """Stores root/runs/NAME with scripts/store_result.py; returns the error if the exit code is not 0."""

    def call(source, *flags, code=0):
        words = [str(root / "runs" / source), *flags, "--results", str(root / "results")]
        assert program("scripts/store_result.py").main(words) == code
        return capsys.readouterr().err

    return call


def metadata_of(root, name):
    return json.loads((root / "results" / name / model_results.METADATA).read_text())


def page_of(root):
    return results_page.pages(root, results_page.collect(root / "results"))[root / "RESULTS.md"]


def test_what_is_stored(made):
    folder = made / "results" / "cnn_64"
    table = predictions_file.read(made / "runs" / "cnn_64" / "report" / "predictions.csv")
    found = predictions_file.read(folder / model_results.STORED)
    np.testing.assert_allclose(found.probs, table.probs, rtol=6e-7)
    assert (found.ids, found.labels.tolist()) == (table.ids, table.labels.tolist())
    assert found.copies.tolist() == [0] * 120 and found.groups.tolist() == list(range(120))
    line = gzip.decompress((folder / model_results.STORED).read_bytes()).decode().splitlines()[1]
    assert len(line.split(",")[3].lstrip("0.")) <= 7
    metadata = metadata_of(made, "cnn_64")
    expected = {"command": "python -m x", "commit": "abc", "hardware": "a laptop", "seconds": 3600.0}
    assert metadata["run"] == expected and "accuracy" not in metadata
    assert metadata["checkpoint"] == "best.safetensors" and metadata["config"]["data"]["dir"] == "fer2013"


def test_pages_are_made_from_the_stored_results_alone(made):
    readme, page = (made / "README.md").read_text(), (made / "RESULTS.md").read_text()
    assert readme.startswith(f"# It\n\n{results_page.BEGIN}\n") and readme.endswith("\n\nMore.\n")
    row = f"| {accuracy(0):.2f} ("
    assert f"| `cnn_64` | 64 x 64 {row}" in readme and "other" not in readme and "99.99" not in readme
    assert f"| cnn_64 {row}" in page and "`python -m x`" in page and "| abc | a laptop | 60 |" in page
    picture = "results/pictures/faces_validation/accuracy.png"
    assert f"({picture})" in page and (made / picture).is_file()
    for name in ("cnn_64/report.md", "comparisons/faces_validation/compare.md"):
        assert (made / "out" / name).is_file()
    report = json.loads((made / "out" / "cnn_64" / "report.json").read_text())
    assert 100 * report["accuracy"] == pytest.approx(accuracy(0))
    assert report["selected_on_this_split"] is True


def test_check_names_the_lines_that_differ(root, capsys):
    results = program("scripts/results.py")
    assert results.main(["--check", "--root", str(root)]) == 0
    readme = root / "README.md"
    readme.write_text(readme.read_text().replace("| `cnn_64` | ", "| `cnn_64` | 9"))
    (root / "RESULTS.md").unlink()
    capsys.readouterr()
    assert results.main(["--check", "--root", str(root)]) == 1
    shown = capsys.readouterr()
    assert "-| `cnn_64` | 9" in shown.out and "+# Results" in shown.out and "make report" in shown.err
    assert not (root / "RESULTS.md").exists()


def test_results_of_other_images_or_labels_get_a_table_of_their_own(root):
    more = write_run(root / "runs" / "more", 3, "portrait")
    result_store.store(more, root / "results" / "more", {})
    found = results_page.compare(result_store.folders(root / "results"))
    names = {title: list(group.metadata) for title, group in found.items()}
    assert names == {"faces_validation": ["cnn_64", "other"], "faces_validation_2": ["more"]}
    # Titles with other labels extend a shorter title, and both are found in either order.
    metadata = root / "results" / "cnn_64" / "facts.json"
    metadata.write_text(json.dumps(metadata_of(root, "cnn_64") | {"labels": "ferplus_majority"}))
    titles = list(results_page.compare([root / "results" / name for name in ("cnn_64", "more")]))
    assert titles == ["faces_validation_ferplus_majority", "faces_validation"]


def test_complaints(root, store, capsys):
    results = program("scripts/results.py")
    (root / "README.md").write_text("# It\n")
    assert results.main(["--check", "--root", str(root)]) == 2
    assert "lacks the markers" in capsys.readouterr().err
    assert results.main(["--root", str(root / "out")]) == 2
    assert "no stored results in" in capsys.readouterr().err
    assert "there are no predictions at" in store("nothing", "--name", "x", code=2)
    assert "without a slash" in store("cnn_64", "--name", "a/b", code=2)


def test_the_commit_is_the_one_that_the_run_notes(root, store):
    path = root / "runs" / "cnn_64" / "starts.jsonl"
    start = {"step": 0, "version": "0.1.0", "jax": "0.10.2", "devices": 1, "device": "cpu"}
    starts = [start | {"commit": "1a2b3c4"}, start | {"step": 5, "commit": "5d6e7f8-dirty"}]
    path.write_text("".join(json.dumps(start) + "\n" for start in starts))
    store("cnn_64", "--name=noted")
    assert metadata_of(root, "noted")["run"]["commit"] == "1a2b3c4 and 5d6e7f8-dirty"
    message = store("cnn_64", "--name=noted", "--commit=fc5796f", code=2)
    assert "the run recorded commit 1a2b3c4 and 5d6e7f8-dirty" in message
    path.write_text(json.dumps(start | {"commit": None}))
    store("cnn_64", "--name=noted", "--commit=fc5796f", "--replace")
    assert metadata_of(root, "noted")["run"]["commit"] == "fc5796f"


def write_ablation(folder):
    """Writes the output of fer-jax sweep --baseline with two trials and two seeds; returns the accuracies."""
    accuracies = {}
    for number, name in enumerate(("baseline", "drop_suspects")):
        for seed in (3, 4):
            write_run(folder / name / f"seed_{seed}", 10 * number + seed)
            accuracies.setdefault(name, []).append(accuracy(10 * number + seed))
    fields = {"baseline": {}, "drop_suspects": {"data.drop_ids": "/home/someone/runs/suspects.csv"}}
    results = {"seeds": [3, 4], "failed": [], "baseline": "baseline"}
    results["trials"] = {name: {"fields": of} for name, of in fields.items()}
    (folder / "results.json").write_text(json.dumps(results))
    return accuracies


def test_an_ablation_is_stored_and_its_tables_are_generated(root, store, capsys):
    accuracies = write_ablation(root / "runs" / "ablation")
    flags = ("--name=ablation", "--commit=abc", "--hardware=a laptop", "--command=fer-jax sweep")
    store("ablation", *flags)
    metadata = (root / "results" / "ablation" / "ablation.json").read_text()
    assert "--config.data.drop_ids=suspects.csv" in metadata and "/home" not in metadata
    results = results_page.collect(root / "results")
    page = results_page.pages(root, results)[root / "RESULTS.md"]
    assert "`fer-jax sweep`, commit abc, a laptop." in page and "120 images of `validation`" in page
    for name, two in accuracies.items():
        spread = np.std(two, ddof=1)
        assert f"| {name} | {np.mean(two):.2f} ± {spread:.2f} (" in page
    results_page.draw(root, results)
    picture = "results/pictures/ablation/differences.png"
    assert f"({picture})" in page and (root / picture).is_file()

    # In the format of earlier versions (fer-jax ablate).
    old, recipes = root / "runs" / "ablation" / "results.json", {"baseline": {"flags": []}}
    recipes["drop_suspects"] = {"flags": ["--config.data.drop_ids=/home/someone/runs/suspects.csv"]}
    old.write_text(json.dumps({"seeds": [3, 4], "failed": [], "recipes": recipes}))
    store("ablation", *flags, "--replace")
    assert (root / "results" / "ablation" / "ablation.json").read_text() == metadata

    run = root / "results" / "ablation" / "drop_suspects.4.csv.gz"
    run.write_bytes(gzip.compress(gzip.decompress(run.read_bytes()).replace(b"face 7,", b"face 700,")))
    assert program("scripts/results.py").main(["--check", "--root", str(root)]) == 2
    assert "drop_suspects.4.csv.gz has other images" in capsys.readouterr().err
    for written, message in (
        ('{"failed": ["mixup"], "baseline": "baseline", "trials": {}}', "is incomplete: mixup failed"),
        ('{"failed": [], "trials": {}}', "has no baseline: expected the --out of fer-jax sweep --baseline"),
        ('{"failed": [', "results.json is damaged (Expecting value"),
        ("[]", "results.json is damaged (expected a JSON object)"),
        (
            '{"failed": [], "baseline": "a"}',
            "results.json is damaged (it lacks the field 'trials'): restore it",
        ),
        ('{"baseline": "a", "trials": {"a": {}}}', "results.json is damaged (it lacks the field 'fields')"),
    ):
        (root / "runs" / "ablation" / "results.json").write_text(written)
        assert message in store("ablation", *flags, code=2)


def test_a_stored_result_is_replaced_only_where_that_is_said(root, store):
    """It is then replaced entirely."""
    folder = root / "results" / "cnn_64"
    write_ablation(root / "runs" / "ablation")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for source in ("other", "ablation"):
        refused = "is not empty (facts.json, predictions.csv.gz): give another --name"
        assert refused in store(source, "--name=cnn_64", code=2)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    store("ablation", "--name=cnn_64", "--replace")
    names = [f"{recipe}.{seed}.csv.gz" for recipe in ("baseline", "drop_suspects") for seed in (3, 4)]
    assert sorted(path.name for path in folder.iterdir()) == ["ablation.json", *names]
    store("other", "--name=cnn_64", "--replace")
    assert sorted(path.name for path in folder.iterdir()) == ["facts.json", "predictions.csv.gz"]


def figure(value, key="value"):
    return {key: value, "interval_95": [value - 0.02, value + 0.01]}


def test_robustness_is_stored_beside_the_report_it_belongs_to(root, store):
    folder = root / "runs" / "robustness"
    folder.mkdir()
    found = {key: METADATA[key] for key in ("model", "selection", "data_hash", "split")}
    corruptions = {name: {"mean": figure(0.3), "kept": figure(0.6)} for name in CORRUPTIONS}
    corruptions["jpeg"]["mean"] = figure(0.4321)
    near = {"clean": figure(0.45, "accuracy"), "mean_corruption_accuracy": figure(0.25), "kept": figure(0.5)}
    found |= {"num_examples": 99, "clean": figure(0.5, "accuracy") | {"macro_f1": 0.1}}
    found |= {"mean_corruption_accuracy": figure(0.31), "kept": figure(0.62), "corruptions": corruptions}
    found |= {"leak_free": {"without_near": near, "without_identical": None}}
    (folder / "robustness.json").write_text(json.dumps(found))
    flags = ("--name", "cnn_64", "--robustness", str(folder), "--replace")
    store("cnn_64", *flags)
    page = page_of(root)
    assert "### Corrupted faces" in page and "|  | cnn_64 |" in page
    for line in (
        "| faces | 99 |",
        "| clean | 50.0 (48.0 - 51.0) |",
        "| without near duplicates: mean | 25.0 (23.0 - 26.0) |",
        f"| {CORRUPTIONS['jpeg'].title} | 43.2 (41.2 - 44.2) |",
    ):
        assert line in page
    (folder / "robustness.json").write_text(json.dumps(found | {"data_hash": "b"}))
    message = store("cnn_64", *flags, code=2)
    assert "for other weights or images than the report: its data_hash differs" in message
    (folder / "robustness.json").write_text(json.dumps(found | {"corruptions": {"jpeg": {}}}))
    assert "robustness.json is damaged (it lacks the field 'mean')" in store("cnn_64", *flags, code=2)


def test_what_the_annotators_say_is_on_the_page(root, store):
    """Votes are not stored, so the metrics come from the report."""
    against = {"given": figure(0.5, "accuracy"), "ferplus_majority": figure(0.75, "accuracy")}
    against = {name: one | {"num_examples": 120} for name, one in against.items()}
    band = {"agreement_above": 0.7, "agreement_up_to": 0.9, "num_examples": 60, "one_annotator": 0.81}
    nobody = {"agreement_above": 0.9, "agreement_up_to": 1.0, "num_examples": 0}
    annotators = {"against": against, "bands": [band | {"against": against}, nobody]}
    path = root / "runs" / "cnn_64" / "report" / "report.json"
    path.write_text(json.dumps(METADATA | {"annotators": annotators}))
    store("cnn_64", "--name", "cnn_64", "--replace")
    page = page_of(root)
    assert "| FER2013 labels, all images | 50.0 (48.0 - 51.0) |" in page
    assert "| FER+ majority, above 70%, up to 90% agree (one annotator 81.0) | 75.0 (73.0 - 76.0) |" in page
    assert "| FER+ majority, above 90%, up to 100% agree |  |" in page
