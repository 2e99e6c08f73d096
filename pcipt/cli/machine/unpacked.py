"""The machine of a report: `--root FILE` reads an archive like the directory that it was made of."""

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from pcipt.host.report.archive import unpack


@contextmanager
def unpacked_root(args: argparse.Namespace) -> Iterator[None]:
    """Make the option --root, which names an archive, name a directory with its content in the with-block.

    Raises: InputError if the archive cannot be read or is not safe to unpack.
    """
    with tempfile.TemporaryDirectory(prefix="pcipt-root.") as directory:
        args.root = unpack(args.root, os.path.realpath(directory))
        yield
