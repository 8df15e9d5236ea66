"""Tests the window for live images, with Matplotlib and without a display."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest

from fer_jax.inference.output.window import Window, WindowError

pytestmark = pytest.mark.drawn


def test_images_are_shown_and_closing_is_told(monkeypatch):
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "TkAgg")
    monkeypatch.setattr(matplotlib.figure.Figure, "show", lambda self: None)
    closed = []
    window = Window("camera 0", lambda: closed.append(1))
    figure = plt.figure("camera 0")
    for size, color in (((30, 40), (255, 0, 0)), ((30, 40), (0, 0, 255)), ((60, 80), (0, 255, 0))):
        window.show(np.full((*size, 3), color, np.uint8))
        figure.canvas.draw()
        height, width = figure.canvas.get_width_height()[::-1]
        assert tuple(np.asarray(figure.canvas.buffer_rgba())[height // 2, width // 2, :3]) == color
    assert closed == []
    figure.canvas.callbacks.process("close_event", None)
    assert closed == [1]
    plt.close(figure)


def test_without_a_toolkit_the_message_says_what_else_to_do(monkeypatch):
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "agg")
    with pytest.raises(WindowError, match="--show: no window can be opened, .*PyQt6.*--out"):
        Window("camera 0", list)
