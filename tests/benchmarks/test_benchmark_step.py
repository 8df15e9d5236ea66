"""Tests benchmarks/step.py with a fixed rate of matrix products."""

import re

import jax
import pytest
from helpers import ROOT, program, tiny_config, tiny_config_file

RATE = 1e12


def number(text):
    """Returns the number in text such as "1.234 MFLOP/s"."""
    value, prefix = re.fullmatch(r"([\d.e+]+) ([kMGT]?)FLOP(?:/s)?", text).groups()
    return float(value) * 1000 ** " kMGT".index(prefix or " ")


def test_the_step_beside_the_devices_rate(tiny_data, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import ceilings

    monkeypatch.setattr(ceilings, "matrix_product_rate", lambda dtype: RATE)
    benchmark = program("benchmarks/step.py")
    config = tiny_config_file(tmp_path / "tiny.py", tiny_data, **{"train.sizes": ((0.5, 8),)})
    flags = ["--config", str(config), f"--data={tiny_data}", "--steps=2", "--rounds=2"]
    flags += [f"--profile={tmp_path / 'traces'}", "--", "--config.train.batch_size=8"]
    assert benchmark.main(flags) == 0
    out = capsys.readouterr().out
    parts = "forward, loss, backward, update, averaged weights, metrics"
    assert f"a step is: resampling and augmentation of uint8 faces, {parts}\n" in out
    # The step at the end of the run.
    assert "cnn_relu, 16 px, 1 channel, float32, batch 8, on " in out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line[:1] == "|"]
    rows = {row[0]: row[1:] for row in rows}
    rate, images, _ = rows["its batch on the device"]
    assert float(images) == pytest.approx(8 * float(rate), abs=1)
    assert rows["as training feeds it"][2].endswith("%")
    # Along an axis, each pixel has three taps, outer pixels two. The input needs no gradient.
    at_16, at_8 = 2 * 8 * (3 * 16 - 2) ** 2, 2 * 8 * (3 * 8 - 2) ** 2
    first, others = at_16 * 4, at_16 * 4 * 4 + at_8 * (4 * 8 + 8 * 8) + 2 * 8 * (8 * 8 + 8 * 7)
    amount = 2 * first + 3 * others
    a_step, a_second, limit, reached, there = rows["matrix products, float32"]
    assert number(a_step) == pytest.approx(amount, rel=1e-3) and number(limit) == RATE
    assert number(a_second) == pytest.approx(amount * float(rate), rel=0.02)
    assert float(there) == pytest.approx(RATE / amount, rel=2e-3)
    assert float(reached.rstrip("%")) == pytest.approx(100 * number(a_second) / RATE, abs=0.06)
    (trace,) = (tmp_path / "traces").rglob("*.xplane.pb")
    assert str(trace) in out
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    assert benchmark.main(flags[:3]) == 2
    assert "there are 2 devices, but the benchmark requires a single one" in capsys.readouterr().err
    taught = tiny_config(tiny_data, **{"distill.teachers": ("cnn_250k",), "optim.sharpness_radius": 0.05})
    _, *parts = benchmark.contents(taught)
    assert parts[:2] == ["the teachers' forward pass", "forward, loss and backward for the sharpness"]
