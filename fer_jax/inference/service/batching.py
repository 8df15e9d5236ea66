"""Dynamic batching: what several callers hand in at about the same time is worked on together."""

import collections
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class QueueFullError(RuntimeError):
    """So much is waiting that no more is taken."""


class ClosedError(RuntimeError):
    """The batcher takes nothing any more."""


class _Order(NamedTuple):
    items: list
    future: Future
    arrived: float  # seconds of the monotonic clock


class Batcher(Generic[Item, Result]):
    """One thread that calls a function with the items of all who wait for it.

    While a batch is worked on, the next one gathers. An idle batcher waits a moment for more to come. What
    one caller hands in stays together and comes in turn.
    """

    def __init__(
        self,
        function: Callable[[list[Item]], Sequence[Result]],
        *,
        size: int,
        wait: float = 0.002,
        capacity: int = 1024,
    ):
        """Starts the thread.

        Args:
          function: from items to as many results, in their order. What it raises goes to all whose items
            were in the batch.
          size: items that make a batch full. Only a single caller's can be more.
          wait: seconds that the first of a batch is kept at most for others to join it.
          capacity: items that may wait. A single caller's may be more, where nothing else waits.

        Raises:
          ValueError: `size`, `wait` or `capacity` is out of range.
        """
        if size < 1 or wait < 0 or capacity < 1:
            raise ValueError(f"size {size}, wait {wait}, capacity {capacity}: expected 1, 0 and 1 at least")
        self._function, self._size, self._wait, self._capacity = function, size, wait, capacity
        self._orders: collections.deque[_Order] = collections.deque()
        self._waiting, self._closed = 0, False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="batcher", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Items that wait for a batch."""
        return self._waiting

    def submit(self, items: Sequence[Item]) -> Future:
        """Hands in items.

        Returns:
          The future list of their results. One that is cancelled before its batch begins costs nothing.

        Raises:
          QueueFullError: too many items wait.
          ClosedError: after `close`.
        """
        order = _Order(list(items), Future(), time.monotonic())
        with self._changed:
            if self._closed:
                raise ClosedError("the batcher is closed")
            if self._waiting and self._waiting + len(order.items) > self._capacity:
                raise QueueFullError(
                    f"{self._waiting} items wait, {len(order.items)} more would pass the limit of "
                    f"{self._capacity}"
                )
            self._orders.append(order)
            self._waiting += len(order.items)
            self._changed.notify_all()
        return order.future

    def close(self) -> None:
        """Takes nothing more, finishes what was taken and ends the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while self._gather():
            if batch := self._take():
                self._work(batch)

    def _gather(self) -> bool:
        """Waits until there is a batch to take; False when there will be none."""
        with self._changed:
            self._changed.wait_for(lambda: self._orders or self._closed)
            if not self._orders:
                return False
            left = self._orders[0].arrived + self._wait - time.monotonic()
            self._changed.wait_for(lambda: self._waiting >= self._size or self._closed, max(0.0, left))
            return True

    def _take(self) -> list[_Order]:
        """The orders of the next batch, without those that were cancelled."""
        batch, count = [], 0
        with self._changed:
            while self._orders and (not batch or count + len(self._orders[0].items) <= self._size):
                order = self._orders.popleft()
                self._waiting -= len(order.items)
                if order.future.set_running_or_notify_cancel():
                    batch.append(order)
                    count += len(order.items)
        return batch

    def _work(self, batch: list[_Order]) -> None:
        try:
            results = list(self._function([item for order in batch for item in order.items]))
        except Exception as error:  # whatever it is, it is the callers' to handle
            for order in batch:
                order.future.set_exception(error)
            return
        start = 0
        for order in batch:
            order.future.set_result(results[start : start + len(order.items)])
            start += len(order.items)
