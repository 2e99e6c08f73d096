"""Read what the hook in the initramfs did: the functions that it kept from dom0's drivers, and the ports that
it gave to xen-pciback.

/run survives the change of root, and ends with the boot.
"""

import os

from pcipt.errors import InputError
from pcipt.host.function.raw_function import sbdf_from_name
from pcipt.host.regular_file import read_regular
from pcipt.pci import Sbdf

CAUGHT, GUARDED = "run/pcipt.caught", "run/pcipt.guarded"  # written by initramfs/boot.sh
HOOK = "the hook in the initramfs"
_LIMIT = 64 * 1024


def read_caught(root: str = "/") -> frozenset[Sbdf]:
    """Return the functions that the hook has kept in this boot; none if it did not run."""
    return _named(root, CAUGHT)


def read_guarded(root: str = "/") -> frozenset[Sbdf]:
    """Return the ports that the hook has put into the list of xen-pciback in this boot; none without it."""
    return _named(root, GUARDED)


def _named(root: str, name: str) -> frozenset[Sbdf]:
    """Return the addresses in a file of the hook; none if it cannot be read."""
    try:
        text = read_regular(os.path.join(root, name), _LIMIT).decode("ascii", "replace")
    except (OSError, InputError):
        return frozenset()
    return frozenset(sbdf for name in text.split() if (sbdf := sbdf_from_name(name)) is not None)
