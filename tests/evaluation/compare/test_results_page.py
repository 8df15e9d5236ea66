"""README.md, RESULTS.md and the stored results: what is published is what the predictions say."""

import gzip
import json

import numpy as np
import pytest
from helpers import ROOT, program, random_case

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
    facts = json.loads((folder / model_results.FACTS).read_text())
    assert '"/' not in json.dumps(facts)
    assert all(facts["run"][key] for key in ("command", "commit", "hardware", "seconds"))


# --- how they come about ---

SPLITS = {"train": {"hash": "t"}, "validation": {"hash": "v"}}
FACTS = {
    "model": {"name": "cnn_relu", "kwargs": {}},
    "config": {"data": {"dir": "/home/someone/data/fer2013"}, "seed": 3},
    "seed": 3,
    "parameters": 1_230_000,
    "emotions": list(EMOTIONS),
    "data": {"name": "faces", "splits": SPLITS},
    "data_hash": "a" * 64,
    "trained_data": {"name": "faces", "splits": SPLITS},
    "trained_data_hash": "a" * 64,
    "selection": {"split": "validation", "metric": "accuracy", "value": 0.7, "step": 9},
    "split": "validation",
    "tta": "none",
    "checkpoint": "/home/someone/runs/cnn/best.safetensors",
    "calibration": None,
    "annotations": [],
    "accuracy": 0.123,  # a figure, which is not stored
}


def write_run(folder, seed):
    probs, labels = random_case(seed, 120)[0], random_case(0, 120)[1]
    ids = [f"face {i}" for i in range(120)]
    table = predictions_file.Predictions(
        ids, probs, labels, list(EMOTIONS), np.arange(120), np.zeros(120, np.int8)
    )
    (folder / "report").mkdir(parents=True)
    predictions_file.write(folder / "report" / "predictions.csv", table)
    (folder / "report" / "report.json").write_text(json.dumps(FACTS))
    (folder / "summary.json").write_text(json.dumps({"seconds": 3600.0}))
    return table


@pytest.fixture
def root(tmp_path):
    """Two stored results and a README with the marks, everything written once."""
    store, results = program("scripts/store_result.py"), program("scripts/results.py")
    for seed, name in enumerate(("cnn", "other")):
        write_run(tmp_path / "runs" / name, seed)
        flags = ["--name", name, "--commit", "abc", "--command", "python -m x", "--hardware", "a laptop"]
        folder = tmp_path / "results"
        assert store.main([str(tmp_path / "runs" / name), *flags, "--results", str(folder)]) == 0
    (tmp_path / "README.md").write_text(
        f"# It\n\n{results_page.BEGIN}\n| cnn | 99.99 |\n{results_page.END}\n\nMore.\n"
    )
    assert results.main(["--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    return tmp_path


def test_what_is_stored(root):
    table = write_run(root / "again", 0)
    folder = root / "results" / "cnn"
    found = predictions_file.read(folder / model_results.STORED)
    np.testing.assert_allclose(found.probs, table.probs, rtol=6e-7)
    assert (found.ids, found.labels.tolist()) == (table.ids, table.labels.tolist())
    assert found.copies.tolist() == [0] * 120 and found.groups.tolist() == list(range(120))
    digits = (
        gzip.decompress((folder / model_results.STORED).read_bytes()).decode().splitlines()[1].split(",")[3]
    )
    assert len(digits.lstrip("0.")) <= 7
    facts = json.loads((folder / model_results.FACTS).read_text())
    expected = {"command": "python -m x", "commit": "abc", "hardware": "a laptop", "seconds": 3600.0}
    assert facts["run"] == expected and "accuracy" not in facts
    assert facts["checkpoint"] == "best.safetensors" and facts["config"]["data"]["dir"] == "fer2013"


def test_pages_are_made_from_the_stored_results_alone(root):
    probs, labels = random_case(0, 120)[0], random_case(0, 120)[1]
    readme = (root / "README.md").read_text()
    assert readme.startswith(f"# It\n\n{results_page.BEGIN}\n") and readme.endswith("\n\nMore.\n")
    accuracy = f"| cnn | {100 * np.mean(probs.argmax(1) == labels):.2f} ("
    assert accuracy in readme and "99.99" not in readme
    page = (root / "RESULTS.md").read_text()
    assert accuracy in page and "`python -m x`" in page and "| abc | a laptop | 60 |" in page
    picture = "results/pictures/faces_validation/accuracy.png"
    assert f"({picture})" in page and (root / picture).is_file()
    for name in ("cnn/report.md", "cnn/confusion_matrix.png", "comparisons/faces_validation/compare.md"):
        assert (root / "out" / name).is_file()
    report = json.loads((root / "out" / "cnn" / "report.json").read_text())
    assert report["accuracy"] == pytest.approx(np.mean(probs.argmax(1) == labels))
    assert report["selected_on_this_split"] is True


def test_check_names_the_lines_that_differ(root, capsys):
    results = program("scripts/results.py")
    assert results.main(["--check", "--root", str(root)]) == 0
    readme = root / "README.md"
    readme.write_text(readme.read_text().replace("| cnn | ", "| cnn | 9"))
    (root / "RESULTS.md").unlink()
    capsys.readouterr()
    assert results.main(["--check", "--root", str(root)]) == 1
    shown = capsys.readouterr()
    assert "-| cnn | 9" in shown.out and "+# Results" in shown.out and "make report" in shown.err
    assert not (root / "RESULTS.md").exists()


def test_results_of_other_images_get_a_table_of_their_own(root):
    write_run(root / "runs" / "more", 3)
    path = root / "runs" / "more" / "report" / "predictions.csv"
    path.write_text(path.read_text().replace("face ", "portrait "))
    result_store.store(root / "runs" / "more", root / "results" / "more", result_store.StoredRun())
    found = results_page.compare(result_store.folders(root / "results"))
    names = {title: list(group.facts) for title, group in found.items()}
    # By other labels the title is longer, and takes nothing from the shorter one, whichever comes first.
    facts = root / "results" / "cnn" / "facts.json"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"labels": "ferplus_majority"}))
    for name in ("cnn", "other"):
        report = root / "results" / name / model_results.STORED
        text = gzip.decompress(report.read_bytes()).replace(b"face ", f"{name} ".encode())
        report.write_bytes(gzip.compress(text))
    titles = list(results_page.compare([root / "results" / name for name in ("cnn", "other")]))
    assert titles == ["faces_validation_ferplus_majority", "faces_validation"]
    assert names == {"faces_validation": ["cnn", "other"], "faces_validation_2": ["more"]}


def test_complaints(root, capsys):
    results, store = program("scripts/results.py"), program("scripts/store_result.py")
    (root / "README.md").write_text("# It\n")
    assert results.main(["--check", "--root", str(root)]) == 2
    assert "lacks the marks" in capsys.readouterr().err
    assert results.main(["--root", str(root / "out")]) == 2
    assert "no stored results in" in capsys.readouterr().err
    flags = ["--name", "x", "--results", str(root / "results")]
    assert store.main([str(root / "nothing"), *flags]) == 2
    assert "there are no predictions at" in capsys.readouterr().err
    assert store.main([str(root / "runs/cnn/report/predictions.csv"), "--name", "a/b"]) == 2
    assert "without a slash" in capsys.readouterr().err


def test_the_commit_is_the_one_that_the_run_notes(root, capsys):
    store, run = program("scripts/store_result.py"), root / "runs" / "cnn"
    start = {"step": 0, "version": "0.1.0", "jax": "0.10.2", "devices": 1, "device": "cpu"}
    starts = [start | {"commit": "1a2b3c4"}, start | {"step": 5, "commit": "5d6e7f8-dirty"}]
    (run / "starts.jsonl").write_text("".join(json.dumps(start) + "\n" for start in starts))
    flags = [str(run), "--name=noted", "--results", str(root / "results")]
    assert store.main(flags) == 0
    facts = json.loads((root / "results" / "noted" / model_results.FACTS).read_text())
    assert facts["run"]["commit"] == "1a2b3c4 and 5d6e7f8-dirty"
    assert store.main([*flags, "--commit=fc5796f"]) == 2
    assert "the run notes that 1a2b3c4 and 5d6e7f8-dirty trained it" in capsys.readouterr().err
    (run / "starts.jsonl").write_text(json.dumps(start | {"commit": None}))
    assert store.main([*flags, "--commit=fc5796f", "--replace"]) == 0
    facts = json.loads((root / "results" / "noted" / model_results.FACTS).read_text())
    assert facts["run"]["commit"] == "fc5796f"


# --- what else is stored ---


def write_ablation(folder):
    """Two recipes under two seeds as fer-jax ablate leaves them; their accuracies."""
    accuracies, labels = {}, random_case(0, 120)[1]
    for number, name in enumerate(("baseline", "drop_suspects")):
        for seed in (3, 4):
            table = write_run(folder / name / f"seed_{seed}", 10 * number + seed)
            accuracies[name, seed] = 100 * np.mean(table.probs.argmax(1) == labels)
    flags = {"baseline": [], "drop_suspects": ["--config.data.drop_ids=/home/someone/runs/suspects.csv"]}
    recipes = {name: {"flags": of} for name, of in flags.items()}
    (folder / "results.json").write_text(json.dumps({"seeds": [3, 4], "failed": [], "recipes": recipes}))
    return accuracies


def test_an_ablation_is_stored_and_its_tables_made_anew(root, capsys):
    results, store = program("scripts/results.py"), program("scripts/store_result.py")
    accuracies = write_ablation(root / "runs" / "ablation")
    flags = [
        "--name",
        "ablation",
        "--results",
        str(root / "results"),
        "--commit",
        "abc",
        "--hardware",
        "a laptop",
    ]
    flags += ["--command", "fer-jax ablate"]
    assert store.main([str(root / "runs" / "ablation"), *flags]) == 0
    facts = (root / "results" / "ablation" / "ablation.json").read_text()
    assert "--config.data.drop_ids=suspects.csv" in facts and "/home" not in facts
    where = ["--root", str(root), "--out", str(root / "out")]
    assert results.main(where) == 0
    page = (root / "RESULTS.md").read_text()
    assert "`fer-jax ablate`, commit abc, a laptop." in page and "120 images of `validation`" in page
    for name in ("baseline", "drop_suspects"):
        two = [accuracies[name, seed] for seed in (3, 4)]
        shown = f"| {name} | {np.mean(two):.2f} ± {np.std(two, ddof=1):.2f} ({two[0]:.2f}, {two[1]:.2f}) |"
        assert shown in page
    picture = "results/pictures/ablation/differences.png"
    assert f"({picture})" in page and (root / picture).is_file()

    run = root / "results" / "ablation" / "drop_suspects.4.csv.gz"
    run.write_bytes(gzip.compress(gzip.decompress(run.read_bytes()).replace(b"face 7,", b"face 700,")))
    assert results.main(["--check", *where]) == 2
    assert "drop_suspects.4.csv.gz is of other images" in capsys.readouterr().err
    for written, message in (
        ('{"failed": ["mixup"], "recipes": {}}', "is not complete: mixup failed"),
        ('{"failed": [], "trials": {}}', "results.json is not of fer-jax ablate: expected its --out"),
    ):
        (root / "runs" / "ablation" / "results.json").write_text(written)
        assert store.main([str(root / "runs" / "ablation"), *flags]) == 2
        assert message in capsys.readouterr().err


def test_a_stored_result_is_replaced_only_where_that_is_said(root, capsys):
    """And then as a whole, whatever was stored there."""
    store, folder = program("scripts/store_result.py"), root / "results" / "cnn"
    write_ablation(root / "runs" / "ablation")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    flags = ["--name=cnn", "--results", str(root / "results")]
    for source in ("other", "ablation"):
        assert store.main([str(root / "runs" / source), *flags]) == 2
        assert "is not empty (facts.json, predictions.csv.gz): give another --name" in capsys.readouterr().err
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert store.main([str(root / "runs" / "ablation"), *flags, "--replace"]) == 0
    names = [f"{recipe}.{seed}.csv.gz" for recipe in ("baseline", "drop_suspects") for seed in (3, 4)]
    assert sorted(path.name for path in folder.iterdir()) == ["ablation.json", *names]
    assert store.main([str(root / "runs" / "other"), *flags, "--replace"]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["facts.json", "predictions.csv.gz"]


def figure(value, key="value"):
    return {key: value, "interval_95": [value - 0.02, value + 0.01]}


def test_robustness_is_stored_beside_the_report_it_belongs_to(root, capsys):
    store = program("scripts/store_result.py")
    folder = root / "runs" / "robustness"
    folder.mkdir()
    kept = {key: FACTS[key] for key in ("model", "selection", "data_hash", "split")}
    corruptions = {name: {"mean": figure(0.3), "kept": figure(0.6)} for name in CORRUPTIONS}
    corruptions["jpeg"]["mean"] = figure(0.4321)
    found = kept | {"num_examples": 99, "clean": figure(0.5, "accuracy") | {"macro_f1": 0.1}}
    found |= {
        "mean_corruption_accuracy": figure(0.31),
        "kept": figure(0.62),
        "corruptions": corruptions,
        "leak_free": None,
    }
    (folder / "robustness.json").write_text(json.dumps(found))
    flags = ["--name", "cnn", "--results", str(root / "results"), "--robustness", str(folder), "--replace"]
    assert store.main([str(root / "runs" / "cnn"), *flags]) == 0
    page = "\n".join(results_page.results_page(results_page.collect(root / "results")))
    assert "### Corrupted faces" in page and "|  | cnn |" in page
    for line in (
        "| faces | 99 |",
        "| clean | 50.0 (48.0 - 51.0) |",
        f"| {CORRUPTIONS['jpeg'].title} | 43.2 (41.2 - 44.2) |",
    ):
        assert line in page
    (folder / "robustness.json").write_text(json.dumps(found | {"data_hash": "b"}))
    assert store.main([str(root / "runs" / "cnn"), *flags]) == 2
    assert (
        "not of the same weights and images as the report: its data_hash differs" in capsys.readouterr().err
    )


def test_what_the_annotators_say_is_on_the_page(root):
    """Their votes are not stored: the figures are those of the report."""
    against = {"given": figure(0.5, "accuracy"), "ferplus_majority": figure(0.75, "accuracy")}
    against = {name: one | {"num_examples": 120} for name, one in against.items()}
    band = {"agreement_above": 0.7, "agreement_up_to": 0.9, "num_examples": 60, "one_annotator": 0.81}
    nobody = {"agreement_above": 0.9, "agreement_up_to": 1.0, "num_examples": 0}
    annotators = {"against": against, "bands": [band | {"against": against}, nobody]}
    run = root / "runs" / "cnn"
    report = json.loads((run / "report" / "report.json").read_text())
    (run / "report" / "report.json").write_text(json.dumps(report | {"annotators": annotators}))
    result_store.store(run, root / "results" / "cnn", result_store.StoredRun(), replace=True)
    page = "\n".join(results_page.results_page(results_page.collect(root / "results")))
    assert "| given labels, all images | 50.0 (48.0 - 51.0) |" in page
    assert "| FER+ majority, above 70%, up to 90% agree (one annotator 81.0) | 75.0 (73.0 - 76.0) |" in page
    assert "| FER+ majority, above 90%, up to 100% agree |  |" in page
