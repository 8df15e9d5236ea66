"""Tests metrics.jsonl, TensorBoard's event files, and the progress bar."""

import json
import subprocess
import sys

import pytest

from fer_jax.training.metric_writers import ProgressBar, Writers, read_records


@pytest.fixture
def no_events(monkeypatch):
    """Simulates a missing TensorFlow, which is also faster."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_records_are_one_json_object_a_line(tmp_path, no_events):
    writers = Writers(tmp_path, 0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""
    writers.scalars(5, 1 / 3, "train", {"loss": 1.5, "learning_rate": 0.1})
    writers.scalars(5, 1 / 3, "eval", {"loss": 1.25})
    expected = [
        {"step": 5, "epoch": 0.3333, "kind": "train", "loss": 1.5, "learning_rate": 0.1},
        {"step": 5, "epoch": 0.3333, "kind": "eval", "loss": 1.25},
    ]
    assert lines(tmp_path) == list(read_records(tmp_path)) == expected


def test_a_resumed_run_drops_what_it_makes_again(tmp_path, no_events):
    first = Writers(tmp_path, 0)
    for step in (5, 10, 15):
        first.scalars(step, step / 10, "train", {"loss": 1.0})
        first.scalars(step, step / 10, "eval", {"loss": 1.0})
    second = Writers(tmp_path, 10)
    assert [r["step"] for r in lines(tmp_path)] == [5, 5, 10, 10]
    second.scalars(15, 1.5, "train", {"loss": 0.5})
    assert [r["step"] for r in lines(tmp_path)] == [5, 5, 10, 10, 15]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_line_cut_off_by_a_kill_ends_the_records(tmp_path, no_events):
    assert list(read_records(tmp_path)) == []
    writers = Writers(tmp_path, 0)
    writers.scalars(5, 0.5, "train", {"loss": 1.0})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 10, "ki')
    assert [r["step"] for r in read_records(tmp_path)] == [5]
    Writers(tmp_path, 10).scalars(15, 1.5, "train", {"loss": 1.0})
    assert [r["step"] for r in lines(tmp_path)] == [5, 15]


def test_without_tensorflow_it_says_so_and_writes_the_rest(tmp_path, no_events, caplog):
    writers = Writers(tmp_path, 0)
    writers.scalars(5, 0.5, "train", {"loss": 1.0})
    writers.image(5, "faces", lambda: pytest.fail("drawn for nobody"))
    writers.hparams({"seed": 1})
    writers.flush()
    (message,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert message.startswith("no TensorBoard files: ") and "metrics.jsonl" in message
    assert len(lines(tmp_path)) == 1
    assert not (tmp_path / "tensorboard").exists()


def test_the_bar_starts_where_the_run_resumes(capsys):
    with ProgressBar(10, 4) as bar:
        bar.update()
        assert (bar.total, bar.n) == (10, 5)
    assert "5/10" in capsys.readouterr().err
    with ProgressBar(10, 4, shown=False) as bar:
        bar.update()
        bar.skip()
    assert capsys.readouterr().err == ""


def test_the_remaining_time_is_not_estimated_from_a_step_that_compiled(monkeypatch):
    """One step takes 100 s, three take 2 s, and 6 of 10 remain."""
    now = [0.0]
    with ProgressBar(10, 0) as bar:
        monkeypatch.setattr(bar, "_time", lambda: now[0])
        bar.start_t = bar.last_print_t = 0.0
        now[0] += 100
        bar.skip()
        for _ in range(3):
            now[0] += 2
            bar.update()
        told = bar.format_dict
        rate = (told["n"] - told["initial"]) / told["elapsed"]
        assert (told["n"], (told["total"] - told["n"]) / rate) == (4, 12)


def test_importing_the_writers_needs_no_tensorflow():
    code = "import sys, fer_jax.training.metric_writers; assert 'tensorflow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
