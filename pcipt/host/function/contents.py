"""Take a file of a function's directory from what was read at once (`at_once`), or read it alone."""

from pcipt.host.files import Contents, Entry
from pcipt.host.tree import read_file, read_link

NOTHING: Contents = {}  # nothing was read at once


def content_of(
    directory: int, entry: Entry, contents: Contents = NOTHING, wanted: int | None = None
) -> bytes | None:
    """Return the content of a file, or its first `wanted` bytes; None if the file is missing.

    Raises: OSError as `tree.read_file`, but not FileNotFoundError.
    """
    if entry.name in contents:
        return contents[entry.name]
    try:
        return read_file(directory, entry.name, entry.limit, wanted)
    except FileNotFoundError:
        return None


def link_of(directory: int, entry: Entry, level: int, contents: Contents = NOTHING) -> str | None:
    """Return the text of a link in a directory `level` steps below the root; None if the link is missing.

    Raises: OSError as `tree.read_link`, but not FileNotFoundError.
    """
    text = contents.get(entry.name, b"")
    if text is None:
        return None
    try:
        return read_link(directory, entry.name, level, text)
    except FileNotFoundError:
        return None
