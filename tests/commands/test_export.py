"""fer-jax export and benchmarks/exports.py: files, what is said of them, and errors."""

import json
import pathlib

import jax
import numpy as np
import pytest
from helpers import needed, program, script

from fer_jax.evaluation import labelled_split
from fer_jax.inference.export import check
from fer_jax.inference.export import export as exports
from fer_jax.pretrained.loaded_model import LoadedModel

onnx = needed("onnx", "export")
ort = needed("onnxruntime", "export")


def test_writes_what_the_flags_ask_for(tiny_run, tiny_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(check, "CALLS", {1: 1, 64: 1})
    out = tmp_path / "new" / "tiny.onnx"
    arguments = [f"--workdir={tiny_run}", "--format=onnx", f"--out={out}", f"--data={tiny_data}"]
    assert script("export").main([*arguments, "--preprocessing=outside", "--softmax=outside"]) == 0
    assert [path.name for path in out.parent.iterdir()] == ["tiny.onnx"]
    (given,), (wanted,) = onnx.load(out).graph.input, onnx.load(out).graph.output
    assert (given.type.tensor_type.elem_type, wanted.name) == (onnx.TensorProto.FLOAT, "logits")
    said = capsys.readouterr().out
    trained = LoadedModel(tiny_run)
    faces = labelled_split.load_split(trained, tiny_data, "validation")
    accuracy = (trained.predict(faces.images, progress=False).argmax(1) == faces.labels).mean()
    for text in ("opset 17", "on 28 faces, validation of", f"{accuracy:.4f} (+0.0000", "100.00%", "for 64"):
        assert text in said
    session = ort.InferenceSession(out)
    normalized = ((faces.images / 255 - 0.5) / 0.25).astype(np.float32)
    logits = jax.jit(trained.model.apply)(trained.variables, normalized)
    np.testing.assert_allclose(session.run(None, {"faces": normalized})[0], logits, atol=1e-4)


def test_errors_name_what_to_do(tiny_run, tmp_path, capsys):
    arguments = [f"--workdir={tiny_run}", f"--out={tmp_path / 'x'}", "--format=onnx", "--data=nowhere"]
    assert script("export").main(arguments) == 2
    assert "nowhere" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_table_has_every_format_and_precision(tiny_run, tiny_data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(exports, "FORMATS", ("onnx", "safetensors"))
    monkeypatch.setattr(check, "CALLS", {1: 1, 64: 1})
    monkeypatch.setattr(check, "WARM_UP", 1)
    arguments = [f"--workdir={tiny_run}", f"--data={tiny_data}", f"--out={tmp_path}"]
    assert program("benchmarks/exports.py").main(arguments) == 0
    result = json.loads((tmp_path / "exports.json").read_text())
    names = [(row["format"], row["precision"]) for row in result["exports"]]
    onnx_names = [("onnx", precision) for precision in ("float32", "float16", "int8")]
    assert names == [*onnx_names, ("safetensors", "float32"), ("safetensors", "float16")]
    for row in result["exports"]:
        path = pathlib.Path(tmp_path, f"{row['precision']}.{row['format']}")
        assert path.stat().st_size == row["bytes"]
        assert row["accuracy_change"] == pytest.approx(row["accuracy"] - row["accuracy_of_the_network"])
        assert set(row["milliseconds"]) == {"1", "64"}
    table = (tmp_path / "exports.md").read_text()
    assert table == capsys.readouterr().out
    assert len([line for line in table.splitlines() if line.startswith("|")]) == 2 + 1 + len(names)
