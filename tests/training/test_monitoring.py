"""Tests the metrics window, non-finite losses, stop signals, and announcements of slow work."""

import logging
import os
import signal
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from fer_jax.training import monitoring
from fer_jax.training.monitoring import NonFiniteLossError, PreemptedError, StopSignal, Window, announced


def metrics(loss, grad_norm=1.0, param_norm=2.0):
    values = {"loss": loss, "accuracy": 0.5, "grad_norm": grad_norm, "param_norm": param_norm}
    return {name: jnp.float32(value) for name, value in values.items()}


def window(log=None):
    def fetch(tree):
        if log is not None:
            log.append(float(tree["loss"]))
        return {name: np.asarray(value) for name, value in tree.items()}

    return Window(fetch)


def test_a_summary_is_the_mean_since_the_last(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(monitoring.time, "perf_counter", lambda: now[0])
    seen = window()
    for step, loss in enumerate([1.0, 2.0, 6.0], 1):
        seen.add(step, metrics(loss, grad_norm=step))
    now[0] += 4
    summary = seen.summary(batch_size=8, wait_seconds=1.0)
    speed = {"seconds": 4.0, "images_per_second": 3 * 8 / 4, "input_wait": 0.25}
    assert summary == {"loss": 3.0, "accuracy": 0.5, "grad_norm": 2.0, "param_norm": 2.0} | speed
    seen.add(4, metrics(10.0))
    now[0] += 2
    summary = seen.summary(batch_size=8, wait_seconds=0.0)
    assert (summary["loss"], summary["seconds"], summary["input_wait"]) == (10.0, 2.0, 0.0)


def test_a_step_is_fetched_only_when_the_next_is_under_way():
    log = []
    seen = window(log)
    seen.add(1, metrics(1.0))
    assert log == []
    seen.add(2, metrics(2.0))
    assert log == [1.0]
    seen.check()
    seen.check()
    assert log == [1.0, 2.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["loss", "grad_norm", "param_norm"])
def test_what_is_not_finite_is_named_with_its_step(name, value):
    seen = window()
    seen.add(6, metrics(1.0))
    seen.add(7, metrics(**({"loss": 0.25, "grad_norm": 1.5, "param_norm": 3.5} | {name: value})))
    with pytest.raises(NonFiniteLossError) as error:
        seen.add(8, metrics(1.0))
    message = str(error.value)
    assert message.startswith("step 7: loss ")
    for label, number in [("loss", 0.25), ("gradient norm", 1.5), ("parameter norm", 3.5)]:
        shown = value if label.startswith(name[:4]) else number
        assert f"{label} {shown}" in message
    assert "config.optim.learning_rate" in message


def test_preempted_ends_with_a_code_of_its_own():
    error = PreemptedError(12)
    assert isinstance(error, SystemExit)
    assert error.code == monitoring.EXIT_PREEMPTED == os.EX_TEMPFAIL == 75
    assert error.step == 12


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_received_within_the_context_only(number):
    seen = []
    previous = signal.signal(number, lambda *_: seen.append("outer"))
    try:
        with StopSignal() as stop:
            assert not stop.received
            signal.raise_signal(number)
            assert stop.received and not seen
        signal.raise_signal(number)
        assert seen == ["outer"]
        with StopSignal() as stop:
            assert not stop.received
    finally:
        signal.signal(number, previous)


@pytest.fixture
def interrupting():
    """Enables Ctrl-C as in a terminal, because background processes may ignore it."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def test_a_second_ctrl_c_interrupts(interrupting):
    with pytest.raises(KeyboardInterrupt), StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.received
        signal.raise_signal(signal.SIGINT)


def test_what_is_ignored_stays_ignored(interrupting):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with StopSignal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert not stop.received
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_other_threads_do_without_the_signal():
    results = []

    def use():
        with StopSignal() as stop:
            results.append(stop.received)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert results == [False]


def test_what_takes_long_is_announced_until_it_ends(caplog):
    reminded = threading.Event()

    class Note(logging.Handler):
        def emit(self, record):
            if record.getMessage().startswith("still"):
                reminded.set()

    note = Note()
    logging.getLogger().addHandler(note)
    try:
        with caplog.at_level(logging.INFO), announced("compiling", every=1e-3):
            assert reminded.wait(60)
    finally:
        logging.getLogger().removeHandler(note)
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "compiling" and lines[1].startswith("still compiling: 0 s")
    assert lines[-1].startswith("compiling took ")
