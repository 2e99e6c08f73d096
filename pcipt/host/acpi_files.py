"""Read ACPI tables: the tables that the kernel shows below a root, or a directory of table files.

All tables in the directory are read, because a check must also find tables that should not exist. Only the
tables in the closed list of `files` are recorded.
Source: linux Documentation/ABI/testing/sysfs-firmware-acpi.
"""

import errno
import os
import re

from pcipt import values as attrs
from pcipt.errors import InputError, NotPermittedError
from pcipt.host import files
from pcipt.host.tree import Tree, list_names, read_file, reason, text_of
from pcipt.pci import Finding

MAX_FILES = 300
MAX_SIZE = 16 << 20
_SYSFS_NAME = r"[A-Z0-9_!]{4}[0-9]{0,3}"
_BY_IASL = (".dsl", ".hex", ".asl", ".lst", ".nsp", ".txt", ".json", ".md")


@attrs.frozen
class TableFile:
    """One ACPI table: the name of its file and its bytes."""

    name: str
    data: bytes


@attrs.frozen
class TableReading:
    """The tables that could be read, sorted by file name, and a finding for each that could not be read."""

    tables: tuple[TableFile, ...]
    findings: tuple[Finding, ...]


def read_tables(root: str = "/") -> TableReading:
    """Read all ACPI tables in sys/firmware/acpi/tables below `root`.

    Links, directories, and files whose name is not the name of a table are skipped. A table that cannot be
    read or is longer than 16 MiB gives a finding.
    Raises: NotPermittedError if no table could be read and permission was refused for at least one;
            InputError if no table could be read for other reasons, or if the directory is missing or cannot
            be listed.
    """
    with Tree(root) as tree:
        try:
            directory = tree.enter(files.TABLES)
            names = [name for name in list_names(directory, MAX_FILES) if re.fullmatch(_SYSFS_NAME, name)]
        except OSError as error:
            raise InputError(f"{root.rstrip('/')}/{files.TABLES}", reason(error)) from error
        return _read_all(directory, names, f"{root.rstrip('/')}/{files.TABLES}")


def read_table_directory(path: str) -> TableReading:
    """Read each file of a directory as one ACPI table.

    Hidden files, links and directories are skipped. Files with an extension of text (.dsl, .txt, …) are
    skipped, because iasl or a person wrote them. A table that cannot be read or is longer than 16 MiB gives a
    finding.
    Raises: NotPermittedError if no table could be read and permission was refused for at least one;
            InputError if no table could be read for other reasons, or if the directory cannot be listed.
    """
    with Tree(path) as tree:
        try:
            directory = tree.enter("")
            names = list_names(directory, MAX_FILES)
        except OSError as error:
            raise InputError(path, reason(error)) from error
        kept = [name for name in names if not name.startswith(".") and not name.lower().endswith(_BY_IASL)]
        return _read_all(directory, kept, path)


def read_table_file(path: str) -> list[bytes]:
    """Return the bytes of the ACPI tables in a file, in their order; at least one. The bytes are not checked.

    The file has raw tables, or the text of acpidump or of a hexdump: see `pcipt/host/paste/tables.py`.

    Raises: InputError if the file cannot be read for any reason (permission is one), is a link or not a
            regular file, is longer than 16 MiB, or is a text from which no table can be read.
    """
    from pcipt.host.paste.tables import TextError, tables_in  # only what somebody sent needs it

    with Tree(os.path.dirname(path) or ".") as tree:
        try:
            return tables_in(read_file(tree.enter(""), os.path.basename(path), MAX_SIZE))
        except OSError as error:
            raise InputError(path, reason(error)) from error
        except TextError as error:
            raise InputError(path, str(error)) from error


def _read_all(directory: int, names: list[str], path: str) -> TableReading:
    """Read the files `names` in `directory` as tables, in the order of their names.

    Links and directories are skipped. A file that cannot be read gives a finding. `path` names the directory
    in messages.
    Raises: NotPermittedError if no table could be read and permission was refused for at least one;
            InputError if no table could be read for other reasons.
    """
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
