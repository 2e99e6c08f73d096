"""One daemon at a time: a lock on the state directory, held for as long as the process lives."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from pcipt.errors import InputError


@contextlib.contextmanager
def only_one(directory: str) -> Iterator[None]:
    """Hold the lock of the state directory, so that one daemon writes the ledger.

    Raises: InputError where another daemon holds it, with its pid, or the directory cannot be used.
    """
    path = os.path.join(directory, "lock")
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise InputError(directory, f"state directory: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise InputError(directory, f"another pcipt daemon is running (pid {holder})") from error
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
