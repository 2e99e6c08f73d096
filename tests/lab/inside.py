"""Functions that run inside dom0, shipped there by `Dom0.call`: each imports what it needs itself."""

from __future__ import annotations


def send_debug_key(key: str) -> None:
    """Press one of Xen's debug keys: the harmless ones only."""
    import ctypes
    import glob
    import os

    if key not in "QqMiVzu":
        raise ValueError(f"debug key {key!r} is not a harmless one")
    xen = ctypes.CDLL(max(glob.glob("/usr/lib/x86_64-linux-gnu/libxenctrl.so.*")), use_errno=True)
    xen.xc_interface_open.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(xen.xc_interface_open(None, None, 0))
    if not handle or xen.xc_send_debug_keys(handle, key.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def physdev_op(command: int, data_hex: str) -> int:
    """Make one physdev_op hypercall on a buffer; give 0 or the errno.

    Law: remove nothing that Xen lists without an owner, add nothing whose memory decode is on (a PVH dom0).
    """
    import ctypes

    call = ctypes.CDLL("libxencall.so.1", use_errno=True)
    for name in ("xencall_open", "xencall_alloc_buffer"):
        getattr(call, name).restype = ctypes.c_void_p
    handle = ctypes.c_void_p(call.xencall_open(None, 0))
    if not handle:
        return ctypes.get_errno()
    call.xencall_alloc_buffer.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    call.xencall2.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint64, ctypes.c_uint64]
    data = bytes.fromhex(data_hex)
    buffer = call.xencall_alloc_buffer(handle, len(data))
    ctypes.memmove(buffer, data, len(data))
    done = call.xencall2(handle, 33, command, buffer)
    return 0 if done >= 0 else ctypes.get_errno()


def pci_device_remove(segment: int, bus: int, devfn: int) -> int:
    """Make Xen forget a function (PHYSDEVOP_pci_device_remove); give 0 or the errno."""
    import struct

    return physdev_op(26, struct.pack("<HBB", segment, bus, devfn).hex())


def pci_device_add(segment: int, bus: int, devfn: int) -> int:
    """Announce a plain function to Xen (PHYSDEVOP_pci_device_add, no flags); give 0 or the errno."""
    import struct

    return physdev_op(25, struct.pack("<HBBIBBxxI", segment, bus, devfn, 0, 0, 0, 0).hex())
