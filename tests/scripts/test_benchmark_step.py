"""scripts/benchmark_step.py: the real step of a configuration, beside ceilings that the test sets."""

import re
import sys
from types import SimpleNamespace

import pytest
from helpers import ROOT, script, tiny_config_file

RATE, BANDWIDTH = 1e12, 1e11


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import ceilings

    monkeypatch.setattr(ceilings, "limits", lambda dtype: (RATE, BANDWIDTH))
    return script("benchmark_step")


def number(text):
    """Of "1.234 MFLOP/s"."""
    value, prefix = re.fullmatch(r"([\d.e+]+) ([kMGT]?)(?:FLOP|B)(?:/s)?", text).groups()
    return float(value) * 1000 ** " kMGT".index(prefix or " ")


def test_the_step_beside_what_the_device_can_do(benchmark, tiny_data, tmp_path, capsys):
    config = tiny_config_file(tmp_path / "tiny.py", tiny_data, **{"train.sizes": ((0.5, 8),)})
    flags = ["--config", str(config), f"--data={tiny_data}", "--steps=2", "--rounds=2"]
    flags += [f"--profile={tmp_path / 'traces'}", "--", "--config.train.batch_size=8"]
    assert benchmark.main(flags) == 0
    out = capsys.readouterr().out
    # The step of the run's end.
    assert "cnn_relu, 16 px, 1 channel, float32, batch 8, on " in out
    assert "forward, loss, backward, update, averaged weights, metrics" in out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line[:1] == "|"]
    rows = {row[0]: row[1:] for row in rows}
    rate, images, _ = rows["its batch on the device"]
    assert float(images) == pytest.approx(8 * float(rate), abs=1)
    assert rows["as training feeds it"][2].endswith("%")
    # Each pixel of an axis has three taps, the outer ones two. Nothing asks for the input's gradient.
    at_16, at_8 = 2 * 8 * (3 * 16 - 2) ** 2, 2 * 8 * (3 * 8 - 2) ** 2
    first, others = at_16 * 4, at_16 * 4 * 4 + at_8 * (4 * 8 + 8 * 8) + 2 * 8 * (8 * 8 + 8 * 7)
    for name, ceiling, amount in (
        ("matrix products, float32", RATE, 2 * first + 3 * others),
        ("memory", BANDWIDTH, None),
    ):
        a_step, a_second, limit, reached, there = rows[name]
        amount = amount or number(a_step)
        assert number(a_step) == pytest.approx(amount, rel=1e-3) and number(limit) == ceiling
        assert number(a_second) == pytest.approx(amount * float(rate), rel=0.02)
        assert float(there) == pytest.approx(ceiling / amount, rel=2e-3)
        assert float(reached.rstrip("%")) == pytest.approx(100 * number(a_second) / ceiling, abs=0.06)
    (trace,) = (tmp_path / "traces").rglob("*.xplane.pb")
    assert str(trace) in out
    assert "CnnRelu" in out.partition("| ms a step |")[2]


def test_several_devices_are_refused(benchmark, tiny_data, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["jax"], "device_count", lambda: 2)
    config = tiny_config_file(tmp_path / "tiny.py", tiny_data)
    assert benchmark.main(["--config", str(config), f"--data={tiny_data}"]) == 2
    assert "there are 2 devices, and the ceilings are those of one" in capsys.readouterr().err


def event(name, start, duration, **stats):
    return SimpleNamespace(name=name, start_ns=start, duration_ns=duration, stats=list(stats.items()))


class Program:
    """What a ranking asks of a program of three instructions, of which one runs others."""

    def find(self, name):
        known = name in ("conv.1", "fusion.2", "call.3")
        return SimpleNamespace(is_caller=name == "call.3") if known else None

    def scope(self, name):
        return {"conv.1": "jit(step)/Conv_1", "fusion.2": "jit(step)/add"}.get(name, "")


def plane_of(name, **lines):
    return SimpleNamespace(name=name, lines=[SimpleNamespace(name=k, events=v) for k, v in lines.items()])


def test_a_gpus_kernels_are_ranked_by_their_time(benchmark):
    """Of a trace as a GPU's has it: kernels on streams, the lines made of them, the host's launches."""
    kernels = [
        event("sm90_conv", 0, 300, hlo_op="conv.1"),
        event("loop_add", 400, 100, hlo_op="fusion.2"),
        event("sm90_conv", 1000, 300, hlo_op="conv.1"),
        event("of_a_graph", 1300, 50, hlo_op="call.3"),
    ]
    streams = {"Stream #7(Compute)": kernels, "Stream #9(Memset)": [event("Memset", 1200, 200)]}
    gpu = plane_of("/device:GPU:0", **streams, **{"XLA Ops": kernels})
    host = plane_of("/host:CPU", python=[event("launch", 0, 9999, hlo_op="conv.1")])
    data, steps = SimpleNamespace(planes=[host, gpu]), benchmark.PROFILED
    first, *_, a, b, c, d = benchmark.ranking(benchmark.operations_of(data, Program(), True), Program())
    assert first == f"busy {800 / 1400:.1%} of the time from the first operation to the last; 4 operations"
    assert a == f"| 0.000 | {600 / 950:.1%} | {2 / steps:g} | conv.1 | jit(step)/Conv_1 |"
    assert b == f"| 0.000 | {200 / 950:.1%} | {1 / steps:g} | Memset |  |"
    assert c == f"| 0.000 | {100 / 950:.1%} | {1 / steps:g} | fusion.2 | jit(step)/add |"
    assert d == f"| 0.000 | {50 / 950:.1%} | {1 / steps:g} | of_a_graph |  |"
    nothing = benchmark.operations_of(SimpleNamespace(planes=[host]), Program(), True)
    assert benchmark.ranking(nothing, Program()) == ["the trace tells of no operation of the device"]


def test_a_cpus_operations_are_those_of_its_threads(benchmark):
    thread = [event("c", 0, 90, hlo_op="call.3"), event("f", 10, 50, hlo_op="fusion.2"), event("idle", 0, 5)]
    data = SimpleNamespace(planes=[plane_of("/host:CPU", tf_XLAEigen=thread)])
    assert list(benchmark.operations_of(data, Program(), False)) == [("fusion.2", 10, 50)]


def test_what_a_step_consists_of(benchmark):
    def config(teachers=(), radius=0.0, decay=0.0):
        return SimpleNamespace(
            distill=SimpleNamespace(teachers=teachers),
            optim=SimpleNamespace(sharpness_radius=radius),
            train=SimpleNamespace(ema_decay=decay),
        )

    plain = [*benchmark.contents(config())]
    assert plain[1:] == ["forward", "loss", "backward", "update", "metrics"]
    assert set(benchmark.contents(config(("cnn",), 0.05, 0.9))) - set(plain) == {
        "the teachers' forward pass",
        "forward, loss and backward for the sharpness",
        "averaged weights",
    }
