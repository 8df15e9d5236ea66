"""Locks folders, so that one process at a time works in them."""

import contextlib
import fcntl
import logging
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def lock(folder: pathlib.Path, busy: Exception | None = None) -> Iterator[int]:
    """Locks a folder (flock) within the context, if its file system can; yields its descriptor.

    Waits for another process that holds the lock or, if given, raises `busy`.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if busy:
                raise busy from None
            logging.info("waiting for another process that uses %s", folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            logging.warning("%s cannot be locked (%s): do not use it in a second process", folder, error)
        yield descriptor
    finally:
        os.close(descriptor)
