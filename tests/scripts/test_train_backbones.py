"""scripts/train_backbones.py at toy size."""

import importlib.util
import json

from helpers import ROOT, run_python


def test_a_network_without_weights_is_trained_from_scratch_and_tabled(tiny_data, tmp_path):
    out = tmp_path / "out"
    nothing_there = {"FER_JAX_CACHE": str(tmp_path / "cache"), "HTTPS_PROXY": "http://127.0.0.1:9"}
    process = run_python(
        "scripts/train_backbones.py",
        f"--out={out}",
        "--configs=mobilenet_v3_small",
        "--",
        f"--config.data.dir={tiny_data}",
        "--config.model.input_size=32",
        "--config.train.batch_size=34",
        "--config.train.eval_epochs=25",
        **nothing_there,
    )
    assert process.returncode == 0, process.stderr
    header, _, _, _, row = (out / "results.md").read_text().splitlines()
    assert "cpu" in header and "--configs=mobilenet_v3_small" in header
    report = json.loads((out / "mobilenet_v3_small" / "report" / "report.json").read_text())
    assert row.startswith("| `mobilenet_v3_small` | from scratch (keras's could not be had) | validation |")
    assert f"| {100 * report['accuracy']:.2f} (" in row
    assert "from scratch" in process.stdout.strip().splitlines()[-1]


def test_ported_weights_are_taken_from_their_folder(tmp_path):
    spec = importlib.util.spec_from_file_location("train_backbones", ROOT / "scripts" / "train_backbones.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    path = tmp_path / "mobilenet_v2_keras.safetensors"
    path.touch()
    assert script.obtain_weights("mobilenet_v2", tmp_path) == (str(path), "ImageNet, keras")


def test_a_config_that_is_not_there_is_refused(tmp_path):
    process = run_python("scripts/train_backbones.py", f"--out={tmp_path}", "--configs", "resnet50")
    assert process.returncode == 2
    assert "invalid choice: 'resnet50'" in process.stderr
