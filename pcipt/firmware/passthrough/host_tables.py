"""What Xen would make of the firmware's tables, for the judgement of the host."""

from collections.abc import Iterator, Sequence

from pcipt.firmware.acceptance.answers import Acceptance, Answer
from pcipt.firmware.acceptance.judge import judge
from pcipt.firmware.acceptance.options import Options
from pcipt.firmware.acceptance.reading import Said
from pcipt.firmware.acceptance.rules import Ending
from pcipt.firmware.coverage import BootSnapshot
from pcipt.firmware.memory_map import MemoryEntry
from pcipt.firmware.passthrough.host import IommuKind, TablesSay
from pcipt.firmware.passthrough.reasons import Reason, Verdict
from pcipt.pci import Machine
from pcipt.pci.requester import Vendor
from pcipt.xen.releases import Version

KINDS = {Vendor.INTEL: IommuKind.VTD, Vendor.AMD: IommuKind.AMD_VI}
_DEFAULTS = Options()
_TRUTH = {Answer.YES: True, Answer.NO: False, Answer.UNKNOWN: None}


def tables_say(
    tables: Sequence[bytes],
    memory: Sequence[MemoryEntry] | None,
    version: Version | None,
    boot: BootSnapshot | None,
    options: Options = _DEFAULTS,
    machine: Machine | None = None,
) -> TablesSay:
    """Return what the firmware's tables promise under a version of Xen.

    `memory` is the memory map, `boot` the functions and bridges when Xen booted; None is not known.
    `options` are those of Xen's command line. `machine` has the registers that decide about AMD-Vi.
    """
    return say_of(judge(tables, memory, version, boot, options, machine))


def say_of(judged: Acceptance) -> TablesSay:
    """Return what a judgement of the tables promises."""
    return TablesSay(
        KINDS[judged.vendor] if judged.vendor is not None else None,
        _TRUTH[judged.iommu],
        _TRUTH[judged.interrupts],
        tuple(_reasons(judged)),
        judged.unknown,
        tuple(_reason(said, Verdict.WARN) for said in judged.said if not said.certain),
    )


def _reasons(judged: Acceptance) -> Iterator[Reason]:
    """Yield a reason for each rule that certainly holds: REFUSE if Xen has no IOMMU then, else WARN."""
    for said in judged.said:
        if said.certain:
            warns = said.rule.ending is Ending.NO_INTERRUPTS
            yield _reason(said, Verdict.WARN if warns else Verdict.REFUSE)


def _reason(said: Said, verdict: Verdict) -> Reason:
    return Reason(
        said.rule.name, verdict, said.text, said.cure, place=str(said.place), vendor=_for_vendor(said)
    )


def _for_vendor(said: Said) -> str:
    """Return the line to send to the vendor: the place, what stands there, and who reads it so."""
    what = "function" if ":" in said.place.table else "ACPI table"
    return f"{what} {said.text} (Xen, xen/drivers/passthrough/{said.rule.source})"
