"""Tests benchmarks/predict.py: its commands run, and failures are reported."""

from helpers import ROOT, program, run_python

from fer_jax.inference.detection import assets
from fer_jax.inference.export import onnx_format
from fer_jax.inference.export.program import Program
from fer_jax.inference.media.inputs import SAMPLE
from fer_jax.pretrained.loaded_model import LoadedModel

IN_A_SMALL_PROCESS = """
import sys

sys.path.insert(0, "benchmarks")
import predict

found = predict.measure({"little": ["-c", ""], "much": ["-c", "len(b'1' * 300_000_000)"]}, rounds=1)
assert all(seconds > 0 for seconds, _ in found.values())
assert found["little"][1] + 200 < found["much"][1] < 600, found
predict.run(["-c", "1 / 0"])
"""


def test_time_and_memory_are_those_of_a_process_and_its_failure_is_quoted():
    done = run_python("-c", IN_A_SMALL_PROCESS)
    assert "ExplainedError" in done.stderr and "ended with 1" in done.stderr, done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_a_photo_that_is_not_there_is_named_before_the_export(capsys):
    assert program("benchmarks/predict.py").main(["--photo=no.jpg"]) == 2
    assert "error: [Errno 2] No such file or directory: 'no.jpg'" in capsys.readouterr().err


def test_the_script_finds_and_classifies_the_faces_of_a_photo(tiny_run, tmp_path):
    onnx_format.write(Program(LoadedModel(tiny_run)), tmp_path / "tiny.onnx", "float32", None)
    script = ROOT / "benchmarks" / "onnx_script.py"
    done = run_python(script, tmp_path / "tiny.onnx", assets.YUNET, SAMPLE)
    assert done.stdout == "1 faces\n", done.stderr
