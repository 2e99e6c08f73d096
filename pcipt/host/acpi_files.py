"""Read ACPI tables: those that the kernel shows beneath a root, or a directory of table files.

The directory itself tells which tables there are, for a check must see those that should not be there. Only
the ones in the closed list are ever recorded.
Source: linux Documentation/ABI/testing/sysfs-firmware-acpi.
"""

import errno
import os
import re

import attrs

from pcipt.errors import InputError, NotPermittedError
from pcipt.host import files
from pcipt.host.tree import Tree, list_names, read_file, reason, text_of
from pcipt.pci import Finding

MAX_FILES = 300
MAX_SIZE = 16 << 20
_SYSFS_NAME = re.compile(r"[A-Z0-9_!]{4}[0-9]{0,3}")
_BY_IASL = (".dsl", ".hex", ".asl", ".lst", ".nsp", ".txt", ".json", ".md")


@attrs.frozen
class TableFile:
    name: str
    data: bytes


@attrs.frozen
class TableReading:
    tables: tuple[TableFile, ...]
    findings: tuple[Finding, ...]


def read_tables(root: str = "/") -> TableReading:
    """Read what stands in sys/firmware/acpi/tables beneath a root.

    Raises: InputError where it is not there or empty; NotPermittedError where no table may be read.
    """
    with Tree(root) as tree:
        try:
            directory = tree.enter(files.TABLES)
            names = [name for name in list_names(directory, MAX_FILES) if _SYSFS_NAME.fullmatch(name)]
        except OSError as error:
            raise InputError(f"{root.rstrip('/')}/{files.TABLES}", reason(error)) from error
        return _read_all(directory, names, f"{root.rstrip('/')}/{files.TABLES}")


def read_table_directory(path: str) -> TableReading:
    """Read every file of a directory as a table, but those that iasl or a person left beside them.

    Raises: InputError where it cannot be listed or holds no file.
    """
    with Tree(path) as tree:
        try:
            directory = tree.enter("")
            names = list_names(directory, MAX_FILES)
        except OSError as error:
            raise InputError(path, reason(error)) from error
        kept = [name for name in names if not name.startswith(".") and not name.lower().endswith(_BY_IASL)]
        return _read_all(directory, kept, path)


def read_table_file(path: str) -> bytes:
    """Read one table from a file.

    Raises: InputError where it cannot be read or is longer than any table.
    """
    with Tree(os.path.dirname(path) or ".") as tree:
        try:
            return read_file(tree.enter(""), os.path.basename(path), MAX_SIZE)
        except OSError as error:
            raise InputError(path, reason(error)) from error


def _read_all(directory: int, names: list[str], path: str) -> TableReading:
    found: list[TableFile] = []
    findings: list[Finding] = []
    refused: OSError | None = None
    for name in sorted(names):
        try:
            found.append(TableFile(text_of(name), read_file(directory, name, MAX_SIZE)))
        except OSError as error:
            if error.errno == errno.EMEDIUMTYPE:
                continue  # the directories data/ and dynamic/
            refused = error if error.errno in (errno.EACCES, errno.EPERM) else refused
            findings.append(
                Finding("table-unread", f"the table {text_of(name)} cannot be read ({reason(error)})")
            )
    if not found:
        if refused is not None:
            raise NotPermittedError(f"the tables in {path}", "only root may read them")
        raise InputError(path, "holds no ACPI table")
    return TableReading(tuple(found), tuple(findings))
