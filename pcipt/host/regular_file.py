"""Open regular files only, so that a FIFO or a device node in their place cannot block the process.

This is for files that a person or pcipt itself writes.
"""

import os
import stat

from pcipt.errors import InputError
from pcipt.hints import BinaryIO


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading. The caller closes it. Links are followed.

    Raises: InputError if it is not a regular file (opening a FIFO would wait for a writer); OSError if it
            cannot be opened, FileNotFoundError if it is missing.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(path, "is no regular file")
    return open(descriptor, "rb")


def read_regular(path: str, limit: int) -> bytes:
    """Return the whole content of a regular file. Links are followed.

    Raises: InputError if it is not a regular file or is longer than `limit` bytes; OSError if it cannot be
            opened or read, FileNotFoundError if it is missing.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(path, f"is longer than {limit} bytes")
    return data
