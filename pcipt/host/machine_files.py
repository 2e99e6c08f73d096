"""Read the files of a machine that belong to no function: ACPI tables, facts about Xen, the memory map.

Only files of the closed list in `files` can be read, so every file read here is recorded too.
"""

from pcipt.errors import InputError
from pcipt.host.files import MACHINE_FILES
from pcipt.host.tree import Tree

_LIMITS = {entry.name: entry.limit for entry in MACHINE_FILES}


def read_listed(root: str, name: str) -> bytes | None:
    """Return the bytes of one file of `MACHINE_FILES`; `name` is its path below the root.

    Return None if it cannot be read: the root or the file is missing, it is too long or not a regular file,
    or reading is not permitted.
    Raises: KeyError if `name` is not in the list.
    """
    limit = _LIMITS[name]  # a KeyError is a bug in the caller
    try:
        with Tree(root) as tree:
            return tree.read(name, limit)
    except (OSError, InputError):
        return None
