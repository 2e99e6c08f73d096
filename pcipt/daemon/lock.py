"""The lock on the state directory: only one daemon runs, and the lock ends with its process."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from pcipt.daemon.folder import Folder
from pcipt.errors import InputError


@contextlib.contextmanager
def only_one(directory: str) -> Iterator[str]:
    """Hold the lock file of the state directory during the with-block.

    The directory is created if it is missing. The lock is released when the with-block or the process ends.
    The with-block gets an empty text. If the directory cannot be created or written, nothing is locked, and
    it gets the reason: several services that only observe do no harm.

    Raises: InputError if another daemon holds the lock; the error has its pid.
    """
    folder = Folder(directory)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = folder.open_for_locking("lock")
    except OSError as error:
        folder.close()
        yield error.strerror or str(error)
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            why = f"another pcipt daemon is running (pid {holder}); `systemctl status pcipt` shows it"
            raise InputError(directory, why) from error
        with contextlib.suppress(OSError):  # a full disk: the pid is missing, but the lock is held
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield ""
    finally:
        os.close(descriptor)
        folder.close()
