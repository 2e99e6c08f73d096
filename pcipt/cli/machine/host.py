"""What the host can do: as the daemon says, else judged here by the machine's files and Xen's words."""

import contextlib
import os
from collections.abc import Mapping, Sequence

from pcipt import values as attrs
from pcipt.cli.machine.pvh import acpi_tables_of, guest_type, memory_map_of, xen_version
from pcipt.errors import InputError, NotPermittedError
from pcipt.firmware.acceptance.options import Options
from pcipt.firmware.memory_map import MemoryEntry
from pcipt.firmware.passthrough.host import (
    BootWords,
    Host,
    HostFacts,
    IommuKind,
    TablesSay,
    XenSays,
    xen_says,
)
from pcipt.firmware.passthrough.host_rules import judge_host
from pcipt.firmware.passthrough.host_view import host_from_json
from pcipt.firmware.passthrough.reasons import Guest
from pcipt.hints import Any
from pcipt.host.acpi_files import read_tables
from pcipt.host.files import INFO_NAMES, XEN_BOOT, XEN_INFO, Depth
from pcipt.host.machine_files import read_listed
from pcipt.host.sysfs import read_machine
from pcipt.host.toolstack import parse_info, read_console, read_xl_info
from pcipt.pci import Machine, decode_machine
from pcipt.pci.requester import vendor_of
from pcipt.xen.releases import Version

DOM0 = {"PV": Guest.PV, "PVH": Guest.PVH, "HVM": Guest.PVH}
CAPABILITIES = {"xen-": Guest.PV, "hvm-": Guest.HVM}  # the words of XENVER_capabilities begin with these


def host_of(
    root: str,
    machine: Machine,
    tables: Sequence[bytes] | None,
    memory: Sequence[MemoryEntry] | None,
    said: XenSays,
    *,
    live: bool,
    other: Version | None = None,
) -> Host:
    """Return what the machine below `root` can do, judged without the daemon.

    `machine` are its functions, `tables` its ACPI tables, `memory` its memory map; None could not be read.
    `said` is what Xen says of itself (`said_by_xen`). `live` is True for the running machine. `other` is
    another version of Xen for which to judge: then of what this one says only its command line and its guests
    count.
    """
    facts = _facts(root, live=live)
    if other is not None:
        facts = attrs.evolve(facts, under_xen=True, release=str(other), xen=other)
        said = attrs.evolve(said, iommu=None, remaps=None, lines=())
    facts = attrs.evolve(facts, kind=_kind(facts, machine), said=said)
    return judge_host(attrs.evolve(facts, tables=_promises(machine, tables, memory, facts)))


def read_host(root: str, socket: str | None, other: Version | None = None) -> Host:
    """Return what the machine below `root` can do. If the daemon does not answer, it is judged here.

    A recording may have tables and no functions. `other` is another version of Xen for which to judge.
    Raises: InputError if neither functions nor tables can be read.
    """
    status = status_at(socket) if other is None else None
    if (told := told_by_daemon(status)) is not None:
        return told
    try:
        machine = decode_machine(read_machine(root, Depth.FULL))
    except InputError:
        with contextlib.suppress(NotPermittedError):
            read_tables(root)
        machine = Machine({})
    tables, memory, live = acpi_tables_of(root), memory_map_of(root), socket is not None
    return host_of(root, machine, tables, memory, said_by_xen(root, live=live), live=live, other=other)


def status_at(socket: str | None) -> dict[str, Any] | None:
    """Return the daemon's reply to `Status`; None if it does not answer, or without a socket (no running
    machine): the client is loaded only for a socket.
    """
    if socket is None:
        return None
    from pcipt.cli.machine.client import asked

    return asked(socket, "Status")


def told_by_daemon(status: Mapping[str, Any] | None) -> Host | None:
    """Return the host in the daemon's reply to `Status`. Return None if it did not answer (`status` is None),
    has not asked Xen yet, or is older.
    """
    told = status.get("host") if status is not None else None
    return host_from_json(told) if told is not None else None


def _facts(root: str, *, live: bool) -> HostFacts:
    """Return what the files say of dom0, Xen and Linux. Only the running machine shows that Xen is absent."""
    kind = _hypervisor(root)
    under_xen = kind == "xen" if kind or live else None
    rights = _text(root, "proc/xen/capabilities").split()
    controls = not rights or "control_d" in rights
    version = [_text(root, f"sys/hypervisor/version/{part}") for part in ("major", "minor", "extra")]
    release = f"{version[0]}.{version[1]}{version[2]}" if version[0] and version[1] else None
    return HostFacts(
        under_xen=under_xen,
        dom0=DOM0.get(guest_type(root)) if controls else None,
        release=release,
        xen=xen_version(root),
        linux=_text(root, "proc/sys/kernel/osrelease") or None,
    )


def _kind(facts: HostFacts, machine: Machine) -> IommuKind | None:
    """Return the kind of IOMMU that the machine's vendor makes, if it has one."""
    if not machine.functions or facts.dom0 is not Guest.PVH:
        return None
    from pcipt.firmware.passthrough.host_tables import KINDS  # as below

    return KINDS[vendor_of(machine)]


def said_by_xen(root: str, *, live: bool) -> XenSays:
    """Return what Xen says of itself.

    On the running machine (`live`) xl is asked for Xen's facts and for its console, which needs root. A
    recording has what Xen said when it was made.
    """
    ask = live and _hypervisor(root) == "xen"
    words = _text(root, "sys/hypervisor/properties/capabilities").split()
    found = {guest for begin, guest in CAPABILITIES.items() if any(word.startswith(begin) for word in words)}
    guests = frozenset({*found, Guest.PVH} if Guest.HVM in found else found) if words else None
    info = _info(root, live=live)
    if not info:
        return XenSays(guests=guests)
    console = read_console() if ask else _text(root, XEN_BOOT.name)
    caps = info.get("virt_caps")
    directio = any(word.endswith("_directio") for word in caps.split()) if caps is not None else None
    return xen_says(directio, _boot_words(console, info.get("xen_commandline")), guests)


def table_options(root: str) -> Options:
    """Return Xen's boot options that change how Xen reads the ACPI tables of the machine below `root`.

    If xl does not answer, or a recording does not hold them, the options have their defaults.
    """
    return said_by_xen(root, live=os.path.realpath(root) == "/").options


def options_in(line: str | None) -> Options:
    """Return those of a command line of Xen; None is not known, and the options have their defaults."""
    return xen_says(None, _boot_words("", line), None).options


def _boot_words(console: str, line: str | None) -> BootWords:
    """Return what Xen printed at boot, with what its command line says."""
    from pcipt.xen.boot_words import parse_boot_words  # it loads much, and only what Xen said needs it

    return parse_boot_words(console).by(line)


def command_line_at(root: str) -> str | None:
    """Return the command line of the Xen below `root`: as xl tells it, or as a recording holds it."""
    return _info(root, live=os.path.realpath(root) == "/").get("xen_commandline")


def _info(root: str, *, live: bool) -> dict[str, str]:
    """Return what xl tells of the running Xen (`live`), or told when the machine was recorded."""
    return read_xl_info() if live and _hypervisor(root) == "xen" else _recorded_info(root)


def _hypervisor(root: str) -> str:
    """Return the name of the hypervisor under which Linux runs; empty if none is known."""
    return _text(root, "sys/hypervisor/type")


def _recorded_info(root: str) -> dict[str, str]:
    """Return what xl told of Xen when the machine below `root` was recorded; nothing for the running one."""
    return parse_info(_text(root, XEN_INFO.name)) if os.path.realpath(root) != "/" else {}


def answers_of_xen() -> dict[str, bytes]:
    """Return the files of a recording with what the running Xen says; none if it does not answer."""
    info = read_xl_info()
    lines = [f"{name} : {info[name]}" for name in INFO_NAMES if name in info]
    if not lines:
        return {}
    from pcipt.xen.boot_words import lines_of_iommu

    told = {XEN_INFO.name: lines, XEN_BOOT.name: lines_of_iommu(read_console())}
    return {name: "".join(f"{line}\n" for line in each).encode() for name, each in told.items()}


def _promises(
    machine: Machine,
    tables: Sequence[bytes] | None,
    memory: Sequence[MemoryEntry] | None,
    facts: HostFacts,
) -> TablesSay | None:
    """Return what the firmware's tables promise; None if none can be read, or dom0 is not shown them.

    If no functions are known, those that the tables name are taken to be there.
    """
    if tables is None or facts.dom0 is Guest.PVH:
        return None
    from pcipt.firmware.coverage import snapshot_from_machine
    from pcipt.firmware.passthrough.host_tables import tables_say  # it loads much, and only root reads tables

    boot = snapshot_from_machine("", machine) if machine.functions else None
    return tables_say(tables, memory, facts.xen, boot, facts.said.options, machine)


def _text(root: str, name: str) -> str:
    """Return the text of a file of the closed list without its line's end; empty if it cannot be read."""
    return (read_listed(root, name) or b"").decode("ascii", "replace").strip()
