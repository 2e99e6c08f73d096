"""The files of the policy: tables `[[passthrough]]` in passthrough.d, and beside it the initramfs's list.

Only root may read them, because they hold serial numbers. A file is written aside and renamed.
"""

import os
import tempfile
import tomllib
from collections.abc import Sequence

from pcipt.errors import InputError, StateError
from pcipt.host.regular_file import read_regular
from pcipt.pci.address import PciPath
from pcipt.pci.policy.compiled import text_from_entries
from pcipt.pci.policy.entries import TABLE, Entry, entry_from_table, text_from_entry

DIRECTORY = "/etc/pcipt"
ENTRIES, COMPILED = "passthrough.d", "passthrough.list"
ENDING = ".toml"
MAX_FILES = 1024
SIZE_LIMIT = 64 * 1024


def read_entries(directory: str = DIRECTORY) -> tuple[Entry, ...]:
    """Return all entries below `directory`, in the order of the names of their files; none without files.

    Raises: InputError for a file that cannot be used, or if two entries have one path; PermissionError if the
            user may not read them.
    """
    place = os.path.join(directory, ENTRIES)
    try:
        names = sorted(name for name in os.listdir(place) if name.endswith(ENDING) and name[0] != ".")
    except FileNotFoundError:
        return ()
    if len(names) > MAX_FILES:
        raise InputError(place, f"has more than {MAX_FILES} files")
    found: dict[PciPath, Entry] = {}
    for name in names:
        for entry in _read_file(os.path.join(place, name)):
            other = found.setdefault(entry.path, entry)
            if other is not entry:
                raise InputError(entry.source, f"{entry.path} is in {other.source} too")
    return tuple(found.values())


def _read_file(path: str) -> list[Entry]:
    """Return the entries of one file. Raises: InputError if it cannot be used; PermissionError."""
    try:
        document = tomllib.loads(read_regular(path, SIZE_LIMIT).decode())
    except FileNotFoundError:
        return []  # removed meanwhile
    except PermissionError:
        raise
    except OSError as error:
        raise InputError(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML
        raise InputError(path, str(error)) from error
    tables = document.pop(TABLE, [])
    if document:
        raise InputError(path, f"unknown key {next(iter(document))}; expected tables [[{TABLE}]]")
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(path, f"{TABLE} is no list of tables; write [[{TABLE}]]")
    return [entry_from_table(table, path) for table in tables]


def add_entries(entries: Sequence[Entry], directory: str = DIRECTORY) -> list[str]:
    """Write each entry to a file of its own, named after its path, and the list anew; return the files.

    Raises: StateError if the policy has an entry with that path already; InputError for a wrong file; OSError
            if writing fails.
    """
    held = {entry.path: entry for entry in read_entries(directory)}
    for entry in entries:
        if entry.path in held:
            raise StateError(f"{entry.path} is kept already, see {held[entry.path].source}")
    os.makedirs(os.path.join(directory, ENTRIES), mode=0o755, exist_ok=True)
    written = []
    for entry in entries:
        path = os.path.join(directory, ENTRIES, f"{entry.path}{ENDING}")
        _write(path, text_from_entry(entry))
        written.append(path)
    write_compiled(directory)
    return written


def remove_entry(entry: Entry, directory: str = DIRECTORY) -> None:
    """Remove the file of an entry, and write the list anew.

    Raises: StateError if its file has other entries too: the user edits it, so that comments are kept;
            OSError if removing or writing fails.
    """
    others = [each for each in read_entries(directory) if each.source == entry.source and each != entry]
    if others:
        raise StateError(f"{entry.source} has {len(others)} more entries: take the table out of it by hand")
    os.remove(entry.source)
    write_compiled(directory)


def write_compiled(directory: str = DIRECTORY) -> None:
    """Write the list for the initramfs from the files. Raises: InputError for a wrong file; OSError."""
    _write(os.path.join(directory, COMPILED), text_from_entries(read_entries(directory)))


def is_compiled(entries: Sequence[Entry], directory: str = DIRECTORY) -> bool:
    """Return True if the list says what the entries say; also if there is no list and no entry."""
    try:
        data = read_regular(os.path.join(directory, COMPILED), MAX_FILES * SIZE_LIMIT)
    except FileNotFoundError:
        return not entries
    return data == text_from_entries(entries).encode()


def _write(path: str, text: str) -> None:
    """Write a file that only root may read: aside, synced, then renamed. Raises: OSError."""
    descriptor, aside = tempfile.mkstemp(prefix=".pcipt.", dir=os.path.dirname(path))  # mode 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.rename(aside, path)
    except OSError:
        os.unlink(aside)
        raise
