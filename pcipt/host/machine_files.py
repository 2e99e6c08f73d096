"""Read what a machine tells beside its functions: ACPI tables, facts about Xen, the memory map.

Only the closed list of `files` can be read, so that whatever somebody reads here is recorded too.
"""

from pcipt.errors import InputError
from pcipt.host.files import MACHINE_FILES
from pcipt.host.tree import Tree

_LIMITS = {entry.name: entry.limit for entry in MACHINE_FILES}


def read_listed(root: str, name: str) -> bytes | None:
    """Read one file of the closed list, named by its path beneath the root.

    Shape:  None where it is absent, too long, no regular file, or may not be read.
    """
    limit = _LIMITS[name]  # a KeyError is our own mistake: the file is not on the list
    try:
        with Tree(root) as tree:
            return tree.read(name, limit)
    except (OSError, InputError):
        return None
