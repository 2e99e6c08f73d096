"""The shim's two handles as Python objects: the only module that imports the extension.

Results stay what C gives, 0 or -errno; texts and numbers are copied out, no cdata leaves. A handle is closed
by its owner; after that, and in a forked child, every use but close() is a StateError.
"""

import os
from collections.abc import Sequence
from typing import Any

from pcipt._hypervisor import ffi, lib
from pcipt.errors import StateError
from pcipt.pci import Frames, Sbdf
from pcipt.xen.interface import DeviceFlags

NODE_UNKNOWN = lib.PCIPT_NODE_UNKNOWN


class LoadError(Exception):
    """A library could not be opened; `errno` says how far it came (ELIBACC, ELIBBAD, or Xen's device)."""

    def __init__(self, library: str, errno: int, reason: str) -> None:
        super().__init__(library, errno, reason)
        self.library = library
        self.errno = errno
        self.reason = reason or os.strerror(errno)


class _Handle:
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
        if self._cdata is None:
            raise StateError(f"{self.library}: used after close")
        if self._process != os.getpid():
            raise StateError(f"{self.library}: opened in another process; after fork only close is allowed")
        return self._cdata

    def close(self) -> None:
        cdata, self._cdata = self._cdata, None
        if cdata is not None:
            self._closer(cdata)


class CallHandle(_Handle):
    """Hypercalls that are stable over Xen releases, through libxencall."""

    def __init__(self, library: str) -> None:
        super().__init__(library, lib.pcipt_call_open, lib.pcipt_call_close, "pcipt_call")

    def add(self, function: Sbdf, flags: DeviceFlags) -> int:
        bits = lib.PCIPT_FLAG_EXTENDED if flags.extended else 0
        if flags.physfn is None:
            return lib.pcipt_call_add(self._open, _device(function), bits, 0, 0)
        bits |= lib.PCIPT_FLAG_VIRTUAL
        return lib.pcipt_call_add(self._open, _device(function), bits, flags.physfn.bus, flags.physfn.devfn)

    def remove(self, function: Sbdf) -> int:
        return lib.pcipt_call_remove(self._open, _device(function))

    def reserved(self, function: Sbdf | None, room: int) -> tuple[int, int, list[tuple[int, int]]]:
        """Ask what a function needs, or for None all there is, with room for so many regions.

        Shape:  the result, how many there are, and each region's first frame and number of frames.
        """
        device = ffi.NULL if function is None else ffi.new("struct pcipt_device *", _device(function))
        count = ffi.new("uint32_t *", room)
        regions = ffi.new("struct pcipt_region[]", room)
        result = lib.pcipt_call_reserved(self._open, device, count, regions)
        copied = count[0] if result == 0 else 0
        return result, count[0], [(regions[n].start, regions[n].count) for n in range(copied)]


class ControlHandle(_Handle):
    """The toolstack's interface, bound to one Xen release, through libxenctrl."""

    def __init__(self, library: str) -> None:
        super().__init__(library, lib.pcipt_control_open, lib.pcipt_control_close, "pcipt_control")

    def nodes(self, functions: Sequence[Sbdf]) -> tuple[int, list[int]]:
        """Ask for the NUMA node of each function.

        Shape:  the result and the nodes; NODE_UNKNOWN where Xen does not list the function.
        """
        count = len(functions)
        devices = ffi.new("struct pcipt_device[]", [_device(function) for function in functions])
        nodes = ffi.new("uint32_t[]", count)
        result = lib.pcipt_control_nodes(self._open, count, devices, nodes)
        return result, ffi.unpack(nodes, count) if count else []

    def test(self, function: Sbdf) -> int:
        return lib.pcipt_control_test(self._open, _device(function))

    def map(self, frames: Frames) -> int:
        return lib.pcipt_control_map(self._open, frames.start, frames.count)

    def unmap(self, frames: Frames) -> int:
        return lib.pcipt_control_unmap(self._open, frames.start, frames.count)

    def press(self, key: str) -> int:
        return lib.pcipt_control_press(self._open, key.encode("ascii"))

    def read(self, index: int, size: int) -> tuple[int, bytes, int]:
        """Copy characters of Xen's console ring from `index` on.

        Shape:  the result, the characters, and the index to go on from.
        """
        buffer = ffi.new("char[]", size)
        at, count = ffi.new("uint32_t *", index), ffi.new("uint32_t *")
        result = lib.pcipt_control_read(self._open, size, buffer, at, count)
        return result, bytes(ffi.buffer(buffer, count[0])), at[0]


def _device(function: Sbdf) -> tuple[int, int, int]:
    return function.segment, function.bus, function.devfn
