"""Functions that run inside dom0, shipped there by `Dom0.call`: each imports what it needs itself."""

from __future__ import annotations

from typing import Any


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


def probe(addresses: list[int]) -> list[str | None]:
    """Read four bytes at each address through /dev/mem; None where the kernel refuses."""
    import mmap
    import os

    memory = os.open("/dev/mem", os.O_RDONLY | os.O_SYNC)
    found: list[str | None] = []
    for address in addresses:
        page = address // 4096 * 4096
        try:
            view = mmap.mmap(memory, 4096, mmap.MAP_SHARED, mmap.PROT_READ, offset=page)
        except OSError:
            found.append(None)
            continue
        found.append(bytes(memoryview(view).cast("I")[address % 4096 // 4 : address % 4096 // 4 + 1]).hex())
        view.close()
    os.close(memory)
    return found


def memory_mapping(first: int, count: int, add: int) -> int:
    """Change dom0's map (XEN_DOMCTL_memory_mapping), frames 1:1; give 0 or the errno."""
    import ctypes
    import glob

    xen = ctypes.CDLL(max(glob.glob("/usr/lib/x86_64-linux-gnu/libxenctrl.so.*")), use_errno=True)
    xen.xc_interface_open.restype = ctypes.c_void_p
    handle = ctypes.c_void_p(xen.xc_interface_open(None, None, 0))
    frames = [ctypes.c_ulong(value) for value in (first, first, count)]
    done = xen.xc_domain_memory_mapping(handle, ctypes.c_uint32(0), *frames, ctypes.c_uint32(add))
    return ctypes.get_errno() if done else 0


def answer_of(method: str, parameters: dict[str, Any]) -> Any:
    """Ask the service over its socket."""
    import json
    import socket

    with socket.socket(socket.AF_UNIX) as link:
        link.connect("/run/pcipt/control")
        link.sendall(json.dumps({"method": f"org.pcipt.{method}", "parameters": parameters}).encode() + b"\0")
        answer = b""
        while not answer.endswith(b"\0"):
            piece = link.recv(65536)
            if not piece:
                raise ConnectionError(answer)
            answer += piece
    told = json.loads(answer[:-1])
    if "error" in told:
        raise LookupError(f"{method} {parameters}: {told}")
    return told["parameters"]


def await_answer(method: str, parameters: dict[str, Any], condition: str, patience: float) -> Any:
    """Ask the service until what it answers, `it`, meets a condition in Python; give that answer."""
    import time

    start = time.monotonic()
    while True:
        try:
            it: Any = answer_of(method, parameters)
            if eval(condition, {"it": it}):
                return it
        except (OSError, LookupError) as exc:
            it = exc  # it is being started, or does not know the function yet
        waited = time.monotonic() - start
        if waited > patience:
            raise TimeoutError(f"{method} {parameters} is never {condition}, but {it}")
        time.sleep(min(0.1 + waited / 10, 2))  # asking too often is what keeps it from becoming true


def await_event(place: str, since: str, wanted: dict[str, str], patience: float) -> list[dict[str, Any]]:
    """Ask until the history of a place has an event with these members; give all that it has since."""
    found = f"any(e['when'] > {since!r} and {wanted!r}.items() <= e.items() for e in it['events'])"
    told = await_answer("History", {"function": place}, found, patience)
    return [event for event in told["events"] if event["when"] > since]


def await_regions(addresses: list[int], expected: list[bool], patience: float) -> None:
    """Read a word at each address until exactly those are mapped that are expected to be."""
    import mmap
    import os
    import time

    memory = os.open("/dev/mem", os.O_RDONLY | os.O_SYNC)
    end = time.monotonic() + patience
    while True:
        found = []
        for address in addresses:
            with mmap.mmap(memory, 4096, mmap.MAP_SHARED, mmap.PROT_READ, offset=address) as view:
                found.append(bytes(view[:4]) != b"\xff\xff\xff\xff")
        if found == expected:
            break
        if time.monotonic() > end:
            raise TimeoutError(f"mapped are {found} instead of {expected}")
        time.sleep(0.1)
    os.close(memory)


def msix_pages() -> list[int]:
    """Give the pages of all MSI-X tables and pending bit arrays: vPCI traps them instead of mapping them.

    The addresses are those of the BAR registers; a virtual function's are the kernel's.
    """
    import glob

    found = set()
    for folder in glob.glob("/sys/bus/pci/devices/*"):
        with open(f"{folder}/config", "rb") as file:
            config = file.read(256)
        with open(f"{folder}/resource", encoding="ascii") as file:
            lines = [[int(word, 16) for word in line.split()] for line in file]
        at = config[0x34] & 0xFC if len(config) > 0x34 and config[0x06] & 0x10 else 0
        for _ in range(48):
            if not at or config[at] == 0x11:
                break
            at = config[at + 1] & 0xFC
        if not at:
            continue
        entries = ((config[at + 3] & 7) << 8 | config[at + 2]) + 1
        for offset, size in ((4, entries * 16), (8, (entries + 63) // 64 * 8)):
            word = int.from_bytes(config[at + offset : at + offset + 4], "little")
            bar = word & 7
            low = int.from_bytes(config[0x10 + 4 * bar : 0x14 + 4 * bar], "little")
            high = int.from_bytes(config[0x14 + 4 * bar : 0x18 + 4 * bar], "little") if low & 6 == 4 else 0
            base = (low & ~0xF) | high << 32 or lines[bar][0]
            first = base + (word & ~7)
            found |= {page << 12 for page in range(first >> 12, (first + size - 1 >> 12) + 1)}
    return sorted(found)
