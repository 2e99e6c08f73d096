"""What a result of Xen means: from 0 or -errno to a value of the interface or to an error.

Both implementations of the interface answer through these functions, so that the simulated one cannot say
something the real one would not. Operations have Xen's own names; they appear in errors, logs and metrics.

Source: Xen xen/common/sysctl.c, domctl.c (interface_version: EACCES) and memory.c, drivers/passthrough/pci.c.
"""

import enum
import errno
import os

from pcipt.errors import HypervisorError, PciptError, StateError, UnsupportedError
from pcipt.pci import Sbdf
from pcipt.xen.interface import Custody, DeviceFlags, Dom0Kind, XenIdentity


class Op(enum.StrEnum):
    ADD = "pci_device_add"
    REMOVE = "pci_device_remove"
    KNOWN = "pcitopoinfo"
    CUSTODY = "test_assign_device"
    MAP = "memory_mapping add"
    UNMAP = "memory_mapping remove"
    RESERVED = "reserved_device_memory_map"
    KEY = "debug_keys"
    CONSOLE = "readconsole"

    @property
    def changes(self) -> bool:
        """Whether the call changes what Xen holds."""
        return self in {Op.ADD, Op.REMOVE, Op.MAP, Op.UNMAP}


# What the toolstack's calls (sysctl, domctl) answer where they cannot be used at all.
REFUSALS = {
    errno.EACCES: "this libxenctrl belongs to another Xen release",
    errno.ENOSYS: "this Xen was built without it",
    errno.EOPNOTSUPP: "this Xen does not support it here",
}


def xen_address(function: Sbdf) -> Sbdf:
    """Give the address back if Xen can name it.

    Raises: UnsupportedError for a segment above ffff (VMD): Xen's segments have 16 bits.
    """
    if not function.fits_xen:
        raise UnsupportedError(str(function), "its segment is above ffff, which Xen cannot name")
    return function


def checked_flags(function: Sbdf, flags: DeviceFlags) -> DeviceFlags:
    """Give the flags back if an announcement can carry them: a physical function shares the segment."""
    if flags.physfn is not None and flags.physfn.segment != function.segment:
        raise StateError(f"{function}: its physical function {flags.physfn} is on another segment")
    return flags


def require_translated(identity: XenIdentity) -> None:
    """See to it that there is a map to change.

    Raises: StateError on a PV dom0: there Xen does nothing and reports success.
    """
    if identity.dom0 is Dom0Kind.PV:
        raise StateError("a PV dom0 has no map of its own memory that Xen could change")


def check(op: Op, result: int, subject: str = "") -> None:
    """Raise what a negative result means.

    Raises: HypervisorError; for a call of the toolstack that this Xen refuses as a whole, UnsupportedError.
    """
    if result < 0:
        raise _error(op, -result, subject)


def custody_from_result(function: Sbdf, result: int) -> Custody:
    """Read the answer of test_assign_device; a toolstack interface that is refused leaves it untold."""
    if result == 0:
        return Custody.HARDWARE_DOMAIN
    if result == -errno.EINVAL:
        return Custody.ELSEWHERE
    if -result in REFUSALS:
        return Custody.UNTOLD
    raise _error(Op.CUSTODY, -result, str(function))


def _error(op: Op, number: int, subject: str) -> PciptError:
    if not op.changes and number in REFUSALS:
        return UnsupportedError(f"Xen's {op}", f"{REFUSALS[number]} ({os.strerror(number)})")
    return HypervisorError(op, number, subject)
