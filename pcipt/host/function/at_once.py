"""Read the files of one directory with one call of the C extension (csrc/files.c).

The extension does for each file what `tree.read_file` and `tree.link_text` do. It decides nothing: whatever
is not a file with its content, or missing, is left to the caller, who reads that file with `tree` and so gets
the same error as without the extension.
"""

import errno
from collections.abc import Sequence

from pcipt._files import ffi, lib
from pcipt.host.files import Contents, Entry, Kind


class FilesAtOnce:
    """A reader of the same files in one directory after another.

    `wanted` has for each file how many bytes to read from its beginning, None for all of it. A limit in
    `wanted` is at most one page, and at least one byte.
    """

    def __init__(self, wanted: Sequence[tuple[Entry, int | None]]) -> None:
        self._names = [entry.name for entry, _ in wanted]
        self._text = b"".join(name.encode() + b"\0" for name in self._names)
        self._files = ffi.new("struct pcipt_file[]", len(wanted))
        for file, (entry, size) in zip(self._files, wanted, strict=True):
            file.limit, file.wanted = 0 if entry.kind is Kind.LINK else entry.limit, size or 0
        self._room = (len(wanted) + 1) * (lib.PCIPT_FILES_MOST + 1)
        self._content = ffi.new("uint8_t[]", self._room)
        self._view = ffi.buffer(self._content)

    def read(self, directory: int) -> Contents:
        """Return the files of the open directory. A file that could not be read is left out."""
        files, view = self._files, self._view
        lib.pcipt_files_read(directory, self._text, files, len(self._names), self._content, self._room)
        found: dict[str, bytes | None] = {}
        for name, file in zip(self._names, files, strict=True):
            status, start = file.status, file.start
            if not status:
                found[name] = view[start : start + file.length]
            elif status == errno.ENOENT:
                found[name] = None
        return found
