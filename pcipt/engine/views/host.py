"""What this host can do, judged once per service from the firmware's tables and from Xen's own answers."""

from pcipt.engine.interfaces import Host as Linux
from pcipt.engine.views.views import Views
from pcipt.errors import HypervisorError, PciptError, UnsupportedError
from pcipt.firmware.memory_map import MemoryEntry, entries_from_names
from pcipt.firmware.passthrough.host import Host, HostFacts, TablesSay, XenSays, xen_says
from pcipt.firmware.passthrough.host_rules import judge_host
from pcipt.firmware.passthrough.host_tables import KINDS, tables_say
from pcipt.firmware.passthrough.reasons import Guest
from pcipt.pci import Finding
from pcipt.pci.requester import vendor_of
from pcipt.xen.boot_words import BootWords
from pcipt.xen.interface import Dom0Kind, Hypervisor, command_line_of

DOM0 = {Dom0Kind.PV: Guest.PV, Dom0Kind.PVH: Guest.PVH}


class HostView:
    """What the host can do. It is judged when Xen has answered for the first time, and does not change."""

    def __init__(self, linux: Linux, xen: Hypervisor) -> None:
        self._linux = linux
        self._xen = xen
        self._judged: Host | None = None

    def of(self, views: Views) -> Host | None:
        """Return what the host can do; None while Xen has not been asked."""
        if self._judged is None and views.complaints.boot_words is not None and views.view.known:
            self._judged = judge_host(self._facts(views, views.complaints.boot_words))
        return self._judged

    def findings(self, views: Views) -> tuple[Finding, ...]:
        """Return the findings about what Xen does other than the tables promise."""
        host = self.of(views)
        return host.findings if host is not None else ()

    def _facts(self, views: Views, words: BootWords) -> HostFacts:
        """Return what is known of the machine."""
        identity = self._xen.identity
        said = self._said(views, words)
        kind = KINDS[vendor_of(views.machine)] if views.pvh else None
        tables = self._linux.acpi_tables()
        return HostFacts(
            under_xen=True,
            dom0=DOM0[identity.dom0],
            release=identity.full,
            xen=identity.version,
            linux=self._linux.release or None,
            tables=self._promises(views, tables, said) if tables and not views.pvh else None,
            kind=kind,
            said=said,
        )

    def _promises(self, views: Views, tables: list[bytes], said: XenSays) -> TablesSay:
        """Return what the tables promise. A PVH dom0 is not shown those of the IOMMU."""
        boot, memory = views.memory.boot, _memory(self._linux)
        return tables_say(tables, memory, views.version, boot, said.options, views.machine)

    def _said(self, views: Views, words: BootWords) -> XenSays:
        """Return what Xen says of itself: its abilities, its words at boot, its command line.

        If it does not tell its abilities, it uses an IOMMU if it tells who owns functions, and uses none if
        it lists functions and does not tell.
        """
        words = words.by(command_line_of(self._xen))
        try:
            able = self._xen.abilities()
        except (HypervisorError, UnsupportedError):
            return xen_says(views.view.custody_told, words, None)
        guests = {Guest.PV: able.pv, Guest.HVM: able.hvm, Guest.PVH: able.hvm}
        return xen_says(able.iommu, words, frozenset(guest for guest, runs in guests.items() if runs))


def _memory(linux: Linux) -> tuple[MemoryEntry, ...] | None:
    """Return the memory map of the firmware, else that of Linux; None if none can be read."""
    try:
        memory = linux.memory()
    except PciptError:
        return None
    lines = memory.firmware or memory.iomem or ()
    return entries_from_names((line.range, line.name) for line in lines)
