"""Shows live images in a window."""

from collections.abc import Callable

import numpy as np


class WindowError(OSError):
    """A window that cannot be opened."""


class Window:
    """A Matplotlib window, with any available toolkit."""

    def __init__(self, title: str, on_close: Callable[[], object]):
        """Opens the window; calls `on_close` when the user closes it.

        Raises:
          WindowError: there is no display, or no toolkit.
        """
        import matplotlib
        import matplotlib.pyplot as plt
        from matplotlib.backends import BackendFilter, backend_registry

        if matplotlib.get_backend().lower() not in backend_registry.list_builtin(BackendFilter.INTERACTIVE):
            raise WindowError(
                "--show: no window can be opened, because there is no display or GUI toolkit (apt install "
                "python3-tk, or pip install PyQt6); write a table with --out, or a video with --annotate"
            )
        self._figure = plt.figure(title)
        self._figure.canvas.mpl_connect("close_event", lambda _: on_close())
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._image, self._shape = None, ()
        self._figure.show()

    def show(self, image: np.ndarray) -> None:
        """Shows the next image, uint8 [H, W, 3]."""
        if self._image is None or self._shape != image.shape:
            self._axes.clear()
            self._axes.set_axis_off()
            self._image, self._shape = self._axes.imshow(image), image.shape
        self._image.set_data(image)
        self._figure.canvas.draw_idle()
        self._figure.canvas.flush_events()
