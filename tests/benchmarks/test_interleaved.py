"""Tests benchmarks/interleaved.py with sides that print a lot or end early."""

import pytest
from helpers import ROOT, run_python

TALKER = """
import sys
sys.path.insert(0, "benchmarks")
import interleaved

if sys.argv[1:] == ["side"]:
    sys.stderr.write("w" * 1_000_000)
    sys.stderr.flush()
    interleaved._SETTLE_SECONDS = 0.0
    print("chatter")
    interleaved.serve({"work": lambda: None}, "gpu NVIDIA H100")
else:
    side = interleaved.Side([__file__, "side"])
    print(len(side.run("work", 3)), side.kind, side.device, sep="|")
    side.close()
"""


@pytest.fixture
def interleaved(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import interleaved

    return interleaved


def test_a_side_names_its_device_and_may_print_more_than_a_pipe_holds(tmp_path):
    path = tmp_path / "talker.py"
    path.write_text(TALKER)
    process = run_python(path, timeout=120)
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stdout == "3|gpu|gpu NVIDIA H100\n"


def test_the_last_output_of_a_failed_side_is_quoted(interleaved):
    program = "import sys; sys.stderr.write('w' * 10_000 + 'out of memory')"
    with pytest.raises(RuntimeError, match="a side ended early:\nw{3987}out of memory$"):
        interleaved.Side(["-c", program])
