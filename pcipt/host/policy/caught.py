"""Read what the hook in the initramfs did: the functions that it kept from dom0's drivers."""

import os

from pcipt.errors import InputError
from pcipt.host.function.raw_function import sbdf_from_name
from pcipt.host.regular_file import read_regular
from pcipt.pci import Sbdf

CAUGHT = "run/pcipt.caught"  # written by initramfs/boot.sh; /run survives the change of root
HOOK = "the hook in the initramfs"
_LIMIT = 64 * 1024


def read_caught(root: str = "/") -> frozenset[Sbdf]:
    """Return the functions that the hook has kept in this boot; none if it did not run."""
    try:
        text = read_regular(os.path.join(root, CAUGHT), _LIMIT).decode("ascii", "replace")
    except (OSError, InputError):
        return frozenset()
    return frozenset(sbdf for name in text.split() if (sbdf := sbdf_from_name(name)) is not None)
