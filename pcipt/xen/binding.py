"""Python objects for the two handles of the C shim. Only this module imports the extension module.

Results are those of C: 0, or -errno if a call failed. Text and numbers are copied; no cdata (a reference to C
memory) is returned. The owner of a handle closes it. After that, and in a forked child, every method except
close() raises StateError.
"""

import os
from collections.abc import Sequence

from pcipt._hypervisor import ffi, lib
from pcipt.errors import StateError
from pcipt.hints import Any
from pcipt.pci import Frames, Sbdf
from pcipt.xen.interface import Abilities, DeviceFlags

NODE_UNKNOWN = lib.PCIPT_NODE_UNKNOWN


class LoadError(Exception):
    """A library of Xen could not be opened. `reason` is a text that says why.

    `errno` is ELIBACC if the library cannot be loaded, and ELIBBAD if the library lacks a function. Any other
    value is the errno of opening Xen's device.
    """

    def __init__(self, library: str, errno: int, reason: str) -> None:
        super().__init__(library, errno, reason)
        self.library = library
        self.errno = errno
        self.reason = reason or os.strerror(errno)


class _Handle:
    """A handle of the C shim.

    `opener` and `closer` are its C functions, `kind` is the name of its C structure.
    Raises: LoadError if the library or Xen's device cannot be opened.
    """

    def __init__(self, library: str, opener: Any, closer: Any, kind: str) -> None:
        reason = ffi.new("struct pcipt_reason *")
        result = ffi.new(f"struct {kind} **")
        failed = opener(os.fsencode(library), reason, result)
        if failed:
            text = ffi.string(reason.text).decode("utf-8", "replace")
            raise LoadError(library, -failed, text)
        self.library = library
        self._cdata: Any = result[0]
        self._closer = closer
        self._process = os.getpid()

    @property
    def _open(self) -> Any:
        """The C handle. Raises StateError if it was closed, or opened in another process."""
        if self._cdata is None:
            raise StateError(f"{self.library}: used after close")
        if self._process != os.getpid():
            raise StateError(f"{self.library}: opened in another process; after fork only close is allowed")
        return self._cdata

    def close(self) -> None:
        """Close the handle. A second call does nothing."""
        cdata, self._cdata = self._cdata, None
        if cdata is not None:
            self._closer(cdata)


class CallHandle(_Handle):
    """The hypercalls that are the same in all Xen releases, made through libxencall.

    Raises: LoadError if the library or Xen's device cannot be opened.
    """

    def __init__(self, library: str) -> None:
        super().__init__(library, lib.pcipt_call_open, lib.pcipt_call_close, "pcipt_call")

    def add(self, function: Sbdf, flags: DeviceFlags) -> int:
        """Announce a function to Xen (PHYSDEVOP_pci_device_add). Return 0 or -errno.

        Only the bus, device and function number of `flags.physfn` are sent. Xen takes its segment from
        `function`.
        """
        bits = lib.PCIPT_FLAG_EXTENDED if flags.extended else 0
        if flags.physfn is None:
            return lib.pcipt_call_add(self._open, _device(function), bits, 0, 0)
        bits |= lib.PCIPT_FLAG_VIRTUAL
        return lib.pcipt_call_add(self._open, _device(function), bits, flags.physfn.bus, flags.physfn.devfn)

    def remove(self, function: Sbdf) -> int:
        """Remove a function from Xen's list (PHYSDEVOP_pci_device_remove). Return 0 or -errno."""
        return lib.pcipt_call_remove(self._open, _device(function))

    def reserved(self, function: Sbdf | None, room: int) -> tuple[int, int, list[tuple[int, int]]]:
        """Ask Xen for the reserved regions of a function, or of the whole machine if `function` is None.

        Shape:  (0 or -errno, number of regions, regions). A region is (first frame, number of frames). If Xen
                has more than `room` regions, the result is -ENOBUFS. After any failure the list of regions is
                empty.
        """
        device = ffi.NULL if function is None else ffi.new("struct pcipt_device *", _device(function))
        count = ffi.new("uint32_t *", room)
        regions = ffi.new("struct pcipt_region[]", room)
        result = lib.pcipt_call_reserved(self._open, device, count, regions)
        copied = count[0] if result == 0 else 0
        return result, count[0], [(regions[n].start, regions[n].count) for n in range(copied)]

    def command_line(self) -> tuple[int, str]:
        """Read Xen's command line. Return (0 or -errno, the text); the text is empty after a failure.

        Xen keeps at most 1023 characters.
        """
        text = ffi.new("char[]", lib.PCIPT_COMMAND_LINE_SIZE)
        result = lib.pcipt_call_command_line(self._open, text)
        return result, ffi.string(text).decode("ascii", "replace")


class ControlHandle(_Handle):
    """The toolstack's interface (sysctl and domctl), made through libxenctrl.

    A libxenctrl belongs to one Xen release. Xen answers -EACCES to a call if the call's interface (sysctl or
    domctl) has another version in Xen than in the library.
    Raises: LoadError if the library or Xen's device cannot be opened.
    """

    def __init__(self, library: str) -> None:
        super().__init__(library, lib.pcipt_control_open, lib.pcipt_control_close, "pcipt_control")

    def nodes(self, functions: Sequence[Sbdf]) -> tuple[int, list[int]]:
        """Ask Xen for the NUMA node of each function, in one call.

        Shape:  (0 or -errno, nodes in the order of `functions`). The node is NODE_UNKNOWN if Xen does not
                list the function. After a failure the nodes have no meaning.
        """
        count = len(functions)
        devices = ffi.new("struct pcipt_device[]", [_device(function) for function in functions])
        nodes = ffi.new("uint32_t[]", count)
        result = lib.pcipt_control_nodes(self._open, count, devices, nodes)
        return result, ffi.unpack(nodes, count) if count else []

    def test(self, function: Sbdf) -> int:
        """Ask Xen who has a function (XEN_DOMCTL_test_assign_device). Return 0 or -errno.

        0 means that dom0 has the function, or that it is quarantined. -EINVAL means that neither is true, or
        that Xen does not know the function. Any other -errno means that Xen does not answer the question.
        """
        return lib.pcipt_control_test(self._open, _device(function))

    def map(self, frames: Frames) -> int:
        """Map the frames 1:1 for dom0. Return 0 or -errno.

        After a failure libxc unmaps the frames from the first on, up to the first frame that is not mapped.
        Frames behind that frame can stay mapped.
        """
        return lib.pcipt_control_map(self._open, frames.start, frames.count)

    def unmap(self, frames: Frames) -> int:
        """Unmap the frames for dom0, up to the first frame that is not mapped. Return 0 or -errno.

        -EINVAL means that a frame was not mapped. The frames behind it stay as they were.
        """
        return lib.pcipt_control_unmap(self._open, frames.start, frames.count)

    def press(self, key: str) -> int:
        """Press a debug key of Xen. Return 0 or -errno. Keys other than Q and q give -EPERM."""
        return lib.pcipt_control_press(self._open, key.encode("ascii"))

    def read(self, index: int, size: int) -> tuple[int, bytes, int]:
        """Read up to `size` characters of Xen's console ring, beginning at `index`.

        If Xen has overwritten the character at `index`, reading begins at the oldest character.
        Shape:  (0 or -errno, characters, index at which the next read begins). If no new characters exist,
                the characters are empty.
        """
        buffer = ffi.new("char[]", size)
        at, count = ffi.new("uint32_t *", index), ffi.new("uint32_t *")
        result = lib.pcipt_control_read(self._open, size, buffer, at, count)
        return result, bytes(ffi.buffer(buffer, count[0])), at[0]

    def abilities(self) -> tuple[int, Abilities]:
        """Ask Xen what it can do (XEN_SYSCTL_physinfo). Return (0 or -errno, the answer).

        After a failure the answer has no meaning.
        """
        bits = ffi.new("uint32_t *")
        result = lib.pcipt_control_capabilities(self._open, bits)
        wanted = (lib.PCIPT_CAPABILITY_PV, lib.PCIPT_CAPABILITY_HVM, lib.PCIPT_CAPABILITY_DIRECTIO)
        return result, Abilities(*(bool(bits[0] & bit) for bit in wanted))


def _device(function: Sbdf) -> tuple[int, int, int]:
    """Return the function as the C structure has it: (segment, bus, devfn).

    devfn is device << 3 | function number.
    """
    return function.segment, function.bus, function.devfn
