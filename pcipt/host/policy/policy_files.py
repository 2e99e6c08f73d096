"""The files of the policy: tables `[[passthrough]]` in passthrough.d and in the settings file, and beside
them the initramfs's list.

Those that pcipt makes only root may read, because they hold serial numbers. A file is written aside and
renamed.
"""

import os
import stat
import tempfile
from collections.abc import Sequence

from pcipt.errors import InputError, StateError
from pcipt.host.policy.settings_file import (
    SIZE_LIMIT,
    document_from,
    entries_in,
    guarded_in,
    read_document,
    settings_beside,
)
from pcipt.host.policy.table_text import without_table
from pcipt.host.regular_file import read_regular
from pcipt.pci.address import PciPath
from pcipt.pci.policy.compiled import text_from_policy
from pcipt.pci.policy.entries import TABLE, Entry, also, distinct, places_of, text_from_entry

DIRECTORY = "/etc/pcipt"
ENTRIES, COMPILED = "passthrough.d", "passthrough.list"
ENDING = ".toml"
MAX_FILES = 1024


def read_entries(directory: str = DIRECTORY, settings: str | None = None) -> tuple[Entry, ...]:
    """Return all entries: those of the settings file, then those of passthrough.d in the order of its files.

    `settings` is the settings file, if it is not the one in `directory`.

    Raises: InputError for a file that cannot be used, or if two entries have one path; PermissionError if the
            user may not read them.
    """
    path = settings or settings_beside(directory)
    entries = entries_in(read_document(path), path)
    for each in _files(directory):
        entries += _read_file(each)
    return distinct(entries)


def _files(directory: str) -> list[str]:
    """Return the paths of the files in passthrough.d, sorted; none without it. Raises: InputError."""
    place = os.path.join(directory, ENTRIES)
    try:
        names = sorted(name for name in os.listdir(place) if name.endswith(ENDING) and name[0] != ".")
    except FileNotFoundError:
        return []
    if len(names) > MAX_FILES:
        raise InputError(place, f"has more than {MAX_FILES} files")
    return [os.path.join(place, name) for name in names]


def _read_file(path: str) -> list[Entry]:
    """Return the entries of one file. Raises: InputError if it cannot be used; PermissionError."""
    document = read_document(path)
    other = next((name for name in document if name != TABLE), None)
    if other is not None:
        raise InputError(path, f"unknown key {other}; expected tables [[{TABLE}]]")
    return entries_in(document, path)


def add_entries(entries: Sequence[Entry], directory: str = DIRECTORY) -> list[str]:
    """Write each entry to a file named after its path, and the list anew; return the files.

    What stands in such a file already stays in front of the entry.

    Raises: StateError if the policy has an entry with that path already; InputError for a wrong file; OSError
            if writing fails.
    """
    held = {where: entry for entry in read_entries(directory) for where in places_of(entry)}
    for entry in entries:
        other = next((held[where] for where in places_of(entry) if where in held), None)
        if other is not None:
            raise StateError(f"an entry for {entry.path} is already in {other.source}{also(entry, other)}")
    _ports(directory)  # nothing is added if the list cannot be written
    os.makedirs(os.path.join(directory, ENTRIES), mode=0o755, exist_ok=True)
    written = []
    for entry in entries:
        path = os.path.join(directory, ENTRIES, f"{entry.path}{ENDING}")
        text = _head(path) + text_from_entry(entry)
        document_from(text, path)  # what stood there may not take a table behind it
        _write(path, text)
        written.append(path)
    write_compiled(directory)
    return written


def _head(path: str) -> str:
    """Return what stands in a file already, with a line's end; nothing without the file."""
    try:
        text = read_regular(path, SIZE_LIMIT).decode()
    except FileNotFoundError:
        return ""
    return text if not text or text.endswith("\n") else f"{text}\n"


def remove_entry(entry: Entry, directory: str = DIRECTORY) -> None:
    """Take the table of an entry out of its file, and write the list anew.

    Everything else in the file stays, comments too. A file in passthrough.d is removed if nothing stays.

    Raises: StateError if the table does not stand in a form that can be taken out: the user edits the file;
            OSError if removing or writing fails.
    """
    _ports(directory)  # nothing is removed if the list cannot be written
    path = entry.source
    number = entries_in(read_document(path), path).index(entry)
    left = without_table(read_regular(path, SIZE_LIMIT).decode(), number)
    if left is None:
        raise StateError(f"{path} does not have the entry as pcipt writes it: delete the entry by hand")
    if left.strip() or path == settings_beside(directory):
        _write(path, left)
    else:
        os.remove(path)
    write_compiled(directory)


def write_compiled(directory: str = DIRECTORY) -> None:
    """Write the list for the initramfs from the files. Raises: InputError for a wrong file; OSError."""
    _write(os.path.join(directory, COMPILED), _compiled(read_entries(directory), directory))


def is_compiled(entries: Sequence[Entry], directory: str = DIRECTORY) -> bool:
    """Return True if the list says what the entries and the settings say; also if all of that is nothing.

    Raises: InputError if the settings cannot be used.
    """
    text = _compiled(entries, directory)
    try:
        data = read_regular(os.path.join(directory, COMPILED), MAX_FILES * SIZE_LIMIT)
    except FileNotFoundError:
        return text == text_from_policy((), ())
    return data == text.encode()


def _compiled(entries: Sequence[Entry], directory: str) -> str:
    """Return the list for the initramfs. Raises: InputError if the settings cannot be used."""
    return text_from_policy(entries, _ports(directory))


def _ports(directory: str) -> tuple[PciPath, ...]:
    """Return the policed ports of the settings file in `directory`. Raises: InputError as above."""
    path = settings_beside(directory)
    return guarded_in(read_document(path), path)


def _write(path: str, text: str) -> None:
    """Write a file: aside, synced, then renamed. Raises: OSError.

    A new one is for root only; one that is there keeps its owner and mode, and a link to it stays.
    """
    path = os.path.realpath(path)
    descriptor, aside = tempfile.mkstemp(prefix=".pcipt.", dir=os.path.dirname(path))  # mode 0600
    try:
        with open(descriptor, "w", encoding="utf-8", newline="") as out:
            if os.path.exists(path):
                before = os.stat(path)
                os.fchown(out.fileno(), before.st_uid, before.st_gid)
                os.fchmod(out.fileno(), stat.S_IMODE(before.st_mode))
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.rename(aside, path)
    except OSError:
        os.unlink(aside)
        raise
