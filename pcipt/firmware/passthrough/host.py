"""What this host can do, and what must be seen of it to tell: values only, `host_rules` judges."""

import enum
from collections.abc import Mapping

from pcipt import values as attrs
from pcipt.firmware.acceptance.options import Options
from pcipt.firmware.passthrough.reasons import GRAVEST_FIRST, Guest, Reason, Unknown, Verdict
from pcipt.hints import TYPE_CHECKING, Protocol
from pcipt.pci import Finding, Sbdf
from pcipt.xen.releases import Version

if TYPE_CHECKING:
    from pcipt.firmware.acpi.ivrs import AddedBlock


class IommuKind(enum.Enum):
    """The kind of an IOMMU, by the name that Xen prints for its driver."""

    VTD = "VT-d"
    AMD_VI = "AMD-Vi"


class Source(enum.Enum):
    """Who tells whether an IOMMU is used: Xen, the kind of dom0, or the firmware's tables (a prediction)."""

    XEN = "xen"
    DOM0 = "dom0"
    TABLES = "tables"
    NOBODY = "nobody"


@attrs.frozen
class TablesSay:
    """What Xen would make of the firmware's tables.

    `kind`: None if there is neither DMAR nor IVRS. `accepted`, `remaps`: would Xen use the IOMMU, and remap
    interrupts; None if that is not known. `reasons` say why not. `doubts` say what it depends on Xen's
    version, which is not known. `unknown` names what was not there to look at.
    """

    kind: IommuKind | None = None
    accepted: bool | None = None
    remaps: bool | None = None
    reasons: tuple[Reason, ...] = ()
    unknown: tuple[str, ...] = ()
    doubts: tuple[Reason, ...] = ()


class AddedRegions(Protocol):
    """The reserved regions that Xen's command line adds; `xen/added_regions.py` reads them."""

    @property
    def rmrr(self) -> tuple[tuple[int, int, tuple[Sbdf, ...]], ...]: ...
    @property
    def ivmd(self) -> "tuple[AddedBlock, ...]": ...
    @property
    def faults(self) -> tuple[str, ...]: ...


class BootWords(Protocol):
    """What Xen printed at boot, and its command line; `xen/boot_words.py` reads both."""

    @property
    def iommu(self) -> bool | None: ...
    @property
    def remaps(self) -> bool | None: ...
    @property
    def kind(self) -> str | None: ...
    @property
    def failures(self) -> tuple[str, ...]: ...
    @property
    def iommu_off(self) -> str: ...
    @property
    def remap_off(self) -> str: ...
    @property
    def queue_off(self) -> str: ...
    @property
    def forced(self) -> bool: ...
    @property
    def per_device(self) -> bool: ...
    @property
    def io_apics(self) -> Mapping[int, int]: ...
    @property
    def added(self) -> AddedRegions: ...
    @property
    def line_known(self) -> bool: ...
    @property
    def igfx(self) -> bool: ...
    @property
    def ats(self) -> bool: ...
    @property
    def msi(self) -> bool | None: ...
    @property
    def phantoms(self) -> tuple[tuple[int, int, int, int], ...]: ...


@attrs.frozen
class BootOptions:
    """Those of Xen's boot options that decide about single functions.

    `igfx` is False with iommu=no-igfx: units of the IOMMU that only serve graphics stay off. `ats` is True if
    devices may translate addresses by themselves. `msi` is False with msi=off. `phantoms`: (segment, bus,
    device, stride) of each pci-phantom=.
    """

    igfx: bool = True
    ats: bool = False
    msi: bool = True
    phantoms: tuple[tuple[int, int, int, int], ...] = ()


@attrs.frozen
class XenSays:
    """What Xen says of itself; None where it was not asked or did not answer.

    `iommu`: does it use an IOMMU? `remaps`: does it remap interrupts? `guests`: the kinds of guest that this
    Xen can run. `iommu_off`, `remap_off`: the words of its command line that switch the IOMMU or interrupt
    remapping off; empty if there are none. `queue_off`: the word with which VT-d remaps no interrupts, unless
    its hardware is version 6 or newer. `forced`: it would have stopped without an IOMMU. `options`: those of
    its options that change what it makes of the tables. `boot`: those that decide about single functions;
    None if its command line is not known. `lines`: what it printed that explains why it has no IOMMU.
    """

    iommu: bool | None = None
    remaps: bool | None = None
    kind: IommuKind | None = None
    guests: frozenset[Guest] | None = None
    iommu_off: str = ""
    remap_off: str = ""
    queue_off: str = ""
    forced: bool = False
    options: Options = Options()
    lines: tuple[str, ...] = ()
    boot: BootOptions | None = None


def xen_says(iommu: bool | None, words: BootWords, guests: frozenset[Guest] | None) -> XenSays:
    """Return in one value what Xen says. `iommu` is its answer to a question, if it was asked."""
    return XenSays(
        words.iommu if iommu is None else iommu,
        words.remaps,
        IommuKind(words.kind) if words.kind is not None else None,
        guests,
        words.iommu_off,
        words.remap_off,
        words.queue_off,
        words.forced,
        Options(
            not words.remap_off,
            words.per_device,
            words.io_apics,
            words.added.rmrr,
            words.added.ivmd,
            words.added.faults,
        ),
        words.failures,
        BootOptions(words.igfx, words.ats, words.msi is not False, words.phantoms)
        if words.line_known
        else None,
    )


@attrs.frozen
class HostFacts:
    """What was seen of a machine. None is not known.

    `under_xen`: does its Linux run under Xen? `dom0`: PV or PVH (`Guest`). `release` is the version of Xen as
    it was written, `xen` the same in numbers; `linux` that of dom0's Linux. `tables`: None if no ACPI table
    could be read, or if dom0 is not shown those of the IOMMU. `kind` is the vendor's kind of IOMMU where no
    table names it.
    """

    under_xen: bool | None = None
    dom0: Guest | None = None
    release: str | None = None
    xen: Version | None = None
    linux: str | None = None
    tables: TablesSay | None = None
    kind: IommuKind | None = None
    said: XenSays = XenSays()


@attrs.frozen
class Host:
    """What this host can do. `used` and `remaps` are None if that is not known.

    `kind` is the kind of its IOMMU, used or not. `source` says who tells that it is used. `reasons` are
    sorted: REFUSE first, then WARN, then OK. `unknown` is what could not be looked at. `guests` has the
    verdict for each kind of guest. `findings`: where Xen does other than its tables promise. `boot`: Xen's
    boot options that decide about single functions; None if they are not known.
    """

    dom0: Guest | None
    xen: str | None
    linux: str | None
    kind: IommuKind | None
    used: bool | None
    remaps: bool | None
    source: Source
    reasons: tuple[Reason, ...]
    unknown: tuple[Unknown, ...]
    guests: Mapping[Guest, Verdict]
    findings: tuple[Finding, ...] = ()
    boot: BootOptions | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict for the kind of guest that fares best."""
        return max(self.guests.values(), key=GRAVEST_FIRST.index)

    def kinds(self, verdict: Verdict) -> list[str]:
        """Return the words of the kinds of guest that have this verdict."""
        return [guest.value for guest, found in self.guests.items() if found is verdict]
