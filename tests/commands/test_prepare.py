"""Tests the messages, exit codes, and summaries of fer-jax prepare and audit."""

import shlex

import numpy as np
import pytest
from helpers import script
from PIL import Image

from fer_jax.data.dataset import read
from fer_jax.data.sources import synthetic

GOOD = " ".join(["7"] * 2304)


@pytest.fixture
def source(tmp_path):
    """Returns a CSV with four training faces, one of them without a valid label, and one per other split."""
    path = tmp_path / "fer2013.csv"
    rows = [f"{label},{GOOD[:-1]}{label},Training" for label in (3, 3, 9, 4)]
    rows += [f"0,{GOOD},PublicTest", f"6,{GOOD},PrivateTest"]
    path.write_text("\n".join(["emotion,pixels,Usage", *rows]))
    return path


def run(name, *arguments):
    return script(name).main([str(argument) for argument in arguments])


@pytest.mark.parametrize("name", ["prepare", "audit"])
def test_a_source_that_is_not_there(tmp_path, capsys, name):
    assert run(name, "--source", tmp_path / "nothing", "--out", tmp_path / "out") == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/nothing does not exist")
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


def test_a_bad_row_stops_or_is_left_out_and_listed(source, tmp_path, capsys):
    arguments = ["--source", source, "--out", tmp_path / "data"]
    assert run("prepare", *arguments) == 2
    error = capsys.readouterr().err
    assert "error: fer2013.csv row 4: emotion is '9'" in error and "--skip_bad" in error
    assert not (tmp_path / "data").exists()
    assert run("prepare", *arguments, "--skip_bad") == 0
    lines = capsys.readouterr().out.splitlines()
    table = [line.split() for line in lines]
    for row in (["train", "validation", "test"], ["happy", "2", "0", "0"], ["all", "3", "1", "1"]):
        assert row in table
    assert "skipped 1 bad rows or images (all are listed in" in "\n".join(lines)
    assert any(line.startswith("  fer2013.csv row 4: emotion is '9'") for line in lines)
    manifest = read.read_manifest(tmp_path / "data")
    assert f"content hash  {manifest['content_hash']}" in lines
    (bad,) = manifest["skipped"]
    assert bad["where"] == "fer2013.csv row 4" and bad["reason"].startswith("emotion is '9'")
    assert any("fer-jax audit --source" in line for line in lines)
    assert any("fer_jax.main --config" in line and str(tmp_path / "data") in line for line in lines)


def test_nothing_but_bad_rows(tmp_path, capsys):
    (tmp_path / "fer2013.csv").write_text("emotion,pixels,Usage\n9,1 2,Training\n")
    assert run("prepare", "--source", tmp_path / "fer2013.csv", "--out", tmp_path / "data", "--skip_bad") == 2
    assert "fer2013.csv: no image can be used (1 are bad)" in capsys.readouterr().err


def test_what_training_on_other_data_needs_is_printed(tmp_path, capsys):
    face = synthetic.generate(1, 0, "train")[0][0, ..., 0]
    for name, image in {"a": np.stack([face] * 2 + [face // 4], axis=-1), "b": face[:9, :9]}.items():
        for split in ("train", "val"):
            path = tmp_path / "my images" / split / "sad" / f"Training_{name}1.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    root, out = tmp_path / "my images", tmp_path / "my data"
    assert run("prepare", "--source", root, "--out", f"{out}/", "--splits", "folders") == 0
    *_, audit, train = capsys.readouterr().out.splitlines()
    assert shlex.split(audit)[2:] == ["--source", str(root), "--out", f"{out}_audit"]
    manifest = read.read_manifest(out)
    assert shlex.split(train) == [
        *("python", "-m", "fer_jax.main", "--config", "configs/cnn.py", f"--config.data.dir={out}/"),
        "--config.model.channels=3",
        f"--config.model.mean={round(manifest['pixel_mean'], 4)}",
        f"--config.model.std={round(manifest['pixel_std'], 4)}",
        "--config.data.image_size=48",
    ]


def test_fer2013_needs_no_overrides():
    metadata = {"channels": 1, "pixel_mean": 0.507742, "pixel_std": 0.255008, "image_shape": [48, 48, 1]}
    assert script("prepare").overrides(metadata) == []


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seed", "-1", "seed -1 must be 0 or more"),
        ("--validation_fraction", "-0.1", "validation_fraction -0.1 and test_fraction 0.1 must be"),
        ("--validation_fraction", "nan", "validation_fraction nan and test_fraction 0.1 must be"),
        ("--test_fraction", "1", "test_fraction 1.0 must be 0 or more, and sum to less than 1"),
    ],
)
def test_numbers_are_checked_first(tmp_path, capsys, option, value, message):
    assert run("prepare", "--source", tmp_path / "nothing", "--out", tmp_path / "data", option, value) == 2
    assert message in capsys.readouterr().err


def test_places_that_cannot_be_written(source, tmp_path, capsys):
    assert run("prepare", "--source", source, "--out", tmp_path) == 2
    assert "contains other files (fer2013.csv), which are not deleted" in capsys.readouterr().err
    assert run("audit", "--source", source, "--out", f"{source}/out") == 2
    error = f"error: cannot write to {source}/out (Not a directory); give another --out"
    assert error in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "1.5", "near"])
def test_audit_checks_its_threshold(capsys, value):
    with pytest.raises(SystemExit) as caught:
        run("audit", "--source", "x", "--out", "y", "--near_threshold", value)
    assert caught.value.code == 2
    assert "--near_threshold" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["prepare", "audit"])
def test_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        run(name, "--help")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert f"fer-jax {name} --source fer2013.csv --out" in printed
    if name == "prepare":
        for kind in ("fer2013.csv", "SPLIT/CLASS/... images", "CLASS/... images", "synthetic"):
            assert f"\n  {kind} " in printed
