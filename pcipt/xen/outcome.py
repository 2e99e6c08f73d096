"""Convert the results of Xen's calls (0 or -errno) to values of the interface or to errors.

The real and the simulated hypervisor both use these functions, so that the simulated one cannot answer what
the real one would not. Operations have Xen's own names, which appear in errors, logs and metrics.
Source: Xen xen/common/sysctl.c, domctl.c (interface_version: EACCES) and memory.c, drivers/passthrough/pci.c.
"""

import enum
import errno
import os

from pcipt.errors import HypervisorError, PciptError, StateError, UnsupportedError
from pcipt.pci import Sbdf
from pcipt.xen.interface import Custody, DeviceFlags, Dom0Kind, XenIdentity


class Op(enum.StrEnum):
    """The operations that can be called, by Xen's names."""

    ADD = "pci_device_add"
    REMOVE = "pci_device_remove"
    KNOWN = "pcitopoinfo"
    CUSTODY = "test_assign_device"
    MAP = "memory_mapping add"
    UNMAP = "memory_mapping remove"
    RESERVED = "reserved_device_memory_map"
    KEY = "debug_keys"
    CONSOLE = "readconsole"
    COMMAND_LINE = "version commandline"
    ABILITIES = "physinfo"

    @property
    def changes(self) -> bool:
        """True if the operation changes the state of Xen (add, remove, map, unmap); False if it only reads.

        KEY (a debug key) only makes Xen print: False.
        """
        return self in {Op.ADD, Op.REMOVE, Op.MAP, Op.UNMAP}


DENIED = "<denied>"

# Errors of the toolstack's calls (sysctl, domctl) which mean that they cannot be used at all.
REFUSALS = {
    errno.EACCES: "this libxenctrl belongs to another Xen release",
    errno.ENOSYS: "this Xen was built without it",
    errno.EOPNOTSUPP: "this Xen does not support it here",
}


def xen_address(function: Sbdf) -> Sbdf:
    """Return `function` unchanged if Xen can name it.

    Raises: UnsupportedError if its segment is above ffff (VMD): Xen's segments have 16 bits.
    """
    if not function.fits_xen:
        raise UnsupportedError(str(function), "its segment is above ffff, which Xen cannot name")
    return function


def checked_flags(function: Sbdf, flags: DeviceFlags) -> DeviceFlags:
    """Return `flags` unchanged if they can be sent to Xen with `function`.

    Raises: StateError if `flags.physfn` is on another segment than `function`.
    """
    if flags.physfn is not None and flags.physfn.segment != function.segment:
        raise StateError(f"{function}: its physical function {flags.physfn} is on another segment")
    return flags


def readable_line(line: str) -> str:
    """Return Xen's command line unchanged if Xen has not hidden it.

    Raises: UnsupportedError if a security policy (XSM) hides it: Xen then answers with a fixed word.
    Source: Xen common/kernel.c, xen_deny.
    """
    if line == DENIED:
        raise UnsupportedError("Xen's command line", "a security policy of Xen hides it")
    return line


def require_translated(identity: XenIdentity) -> None:
    """Raise StateError if dom0 is PV: it has no map that could be changed.

    For a PV dom0 Xen would do nothing and report success.
    """
    if identity.dom0 is Dom0Kind.PV:
        raise StateError("a PV dom0 has no map of its own memory that Xen could change")


def check(op: Op, result: int, subject: str = "") -> None:
    """Raise the error that a negative `result` means. Return None if the result is 0 or positive.

    `subject` names in the error what the call was about.
    Raises: UnsupportedError if `op` only reads and `result` is -EACCES, -ENOSYS or -EOPNOTSUPP: Xen refuses
            this operation altogether. HypervisorError for any other negative result.
    """
    if result < 0:
        raise _error(op, -result, subject)


def custody_from_result(function: Sbdf, result: int) -> Custody:
    """Return the custody that a result of test_assign_device means.

    0 is HARDWARE_DOMAIN, -EINVAL is ELSEWHERE. -EACCES, -ENOSYS and -EOPNOTSUPP are UNTOLD: the toolstack
    interface is refused or there is no IOMMU.
    Raises: HypervisorError for any other result.
    """
    if result == 0:
        return Custody.HARDWARE_DOMAIN
    if result == -errno.EINVAL:
        return Custody.ELSEWHERE
    if -result in REFUSALS:
        return Custody.UNTOLD
    raise _error(Op.CUSTODY, -result, str(function))


def _error(op: Op, number: int, subject: str) -> PciptError:
    """Return the exception for a positive errno of a call.

    It is UnsupportedError if `op` only reads and the errno is in REFUSALS, else HypervisorError.
    """
    if not op.changes and number in REFUSALS:
        return UnsupportedError(f"Xen's {op}", f"{REFUSALS[number]} ({os.strerror(number)})")
    return HypervisorError(op, number, subject)
