"""Open files that only a person or pcipt itself writes: what is no regular file must hold nobody up."""

import os
import stat
from typing import BinaryIO

from pcipt.errors import InputError


def open_regular(path: str) -> BinaryIO:
    """Open a file for reading.

    Raises: InputError where it is no regular file (opening a FIFO would wait for a writer), OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(path, "is no regular file")
    return open(descriptor, "rb")


def read_regular(path: str, limit: int) -> bytes:
    """Read a file whole.

    Raises: InputError where it is no regular file or longer than `limit` bytes, OSError.
    """
    with open_regular(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(path, f"is longer than {limit} bytes")
    return data
