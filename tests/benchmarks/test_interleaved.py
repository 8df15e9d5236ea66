"""benchmarks/interleaved.py: peers in this process, and sides that print a lot or end early."""

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


def test_peers_take_turns_and_the_median_counts(interleaved, monkeypatch):
    """Each call moves the clock by its next duration; the first round is a warm-up."""
    now, turns = [0.0], []
    durations = {"a": iter((9.0, 1.0, 5.0, 2.0)), "b": iter((9.0, 3.0, 3.0, 8.0))}
    monkeypatch.setattr(interleaved.time, "perf_counter", lambda: now[0])

    def call(name):
        turns.append(name)
        now[0] += next(durations[name])

    sides = {"a": lambda: call("a"), "b": lambda: call("b")}
    assert interleaved.medians(sides, rounds=3) == {"a": 2.0, "b": 3.0}
    assert "".join(turns) == "abababab"


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
