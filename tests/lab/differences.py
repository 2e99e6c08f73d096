"""What is expected to differ between the cells of the matrix, in one table, each with its reason.

A scene that stands here for a cell is skipped, or it is run and must fail: if it passes there, the run fails.
`because` names the row of `pcipt/xen/releases.py` that is the reason, or what the emulated hardware lacks.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

import pytest

from pcipt.xen.releases import MSIX_CHECKED, PCIBACK_NEEDS_GSI, PVH_DOM0_GIVES_DEVICES

from .cell import Cell

#: Reasons that are no fact about a release of Xen: what the emulated hardware lacks.
NO_REGIONS = "QEMU's AMD IOMMU: its IVRS tells a virtual address size of 0, so Xen drops every ivmd="
NAMED_BY_IVRS = "QEMU's AMD IOMMU: its IVRS names the functions that are there at boot, and no others below"
NO_FAULTS = "QEMU's AMD IOMMU: Xen gets no event for DMA that was refused"
AMD_EMULATED = "QEMU's AMD IOMMU with a device of an HVM guest: its transmit queue times out"
MSI_BUG = "Xen 4.17.7 with QEMU's AMD IOMMU: nvme's interrupts are lost there; the cause is not known"
EMULATED = (NO_REGIONS, NAMED_BY_IVRS, NO_FAULTS, AMD_EMULATED, MSI_BUG)
NOT_FOLLOWED = "no unit serves the function at its new number: following it would leave an orphan"
NOTHING_TO_WITHDRAW = "nothing can be withdrawn: there are no reserved regions"


@dataclass(frozen=True)
class Difference:
    """One row: `scene` and `cell` are patterns as of a shell, `runs` is False for a scene that is skipped."""

    scene: str
    cell: str
    why: str
    because: str
    runs: bool = False

    def mark(self) -> pytest.MarkDecorator:
        """Give the mark for the scene."""
        reason = f"{self.why} ({self.because})"
        return pytest.mark.xfail(strict=True, reason=reason) if self.runs else pytest.mark.skip(reason=reason)


_TAKEN = "Xen takes virtual functions: the scene before is the one"
_NOT_TAKEN = "Xen takes no virtual function with MSI-X: the next scene is the one"
_GIVES_NOTHING = "a PVH dom0 cannot give devices away"
_NO_ORPHAN = "Xen takes what Linux tells it of, and no orphan is left"
_WHOLE = "test_leaving::test_virtual_functions_that_xen_does_not_take_*"
_GUEST_MUTE = "the guest's NIC sends nothing, and Xen tells no fault: why is not known"
_NVME_DIES = (
    "when nvme is bound again after it did not answer, this Xen stops: BUG at arch/x86/msi.c:239 (PVH), page "
    "fault in rangeset_contains_range (PV)"
)
_NO_PIN = "the function has no interrupt pin, and xen-pciback does not take it"
DIFFERENCES: tuple[Difference, ...] = (
    Difference("test_passthrough::test_release_and_reclaim", "trixie-pvh-*", _NO_PIN, PCIBACK_NEEDS_GSI.name),
    Difference("test_passthrough::test_what_was_hidden_*", "trixie-pvh-*", _NO_PIN, PCIBACK_NEEDS_GSI.name),
    Difference(
        "test_passthrough::test_hot_unplug_of_the_last_*", "trixie-pvh-*", _NO_PIN, PCIBACK_NEEDS_GSI.name
    ),
    Difference("test_silent::test_a_silently_forgotten_*", "trixie-pvh-*", _NO_PIN, PCIBACK_NEEDS_GSI.name),
    Difference("test_leaving::test_virtual_functions_are_*", "trixie-pvh-*", _NOT_TAKEN, MSIX_CHECKED.name),
    Difference(_WHOLE, "bookworm-*", _TAKEN, MSIX_CHECKED.name),
    Difference("test_leaving::test_what_linux_plugs_*", "bookworm-*", _NO_ORPHAN, MSIX_CHECKED.name),
    Difference("test_leaving::test_what_linux_plugs_*", "*-pv-*", _NO_ORPHAN, MSIX_CHECKED.name),
    Difference(_WHOLE, "*-pv-*", _TAKEN, MSIX_CHECKED.name),
    Difference("test_hvm_guest::*", "bookworm-pvh-*", _GIVES_NOTHING, PVH_DOM0_GIVES_DEVICES.name),
    Difference("test_dma_faults::*", "*-amd", "refused DMA is not told", NO_FAULTS),
    Difference("test_hvm_guest::*", "trixie-pvh-amd", _GUEST_MUTE, AMD_EMULATED),
    Difference("test_dma::*", "*-amd", NOTHING_TO_WITHDRAW, NO_REGIONS),
    Difference("test_passthrough::test_what_xen_does_alone", "*-amd", NOTHING_TO_WITHDRAW, NO_REGIONS),
    Difference("test_passthrough::test_xl_by_hand_*", "*-amd", NOTHING_TO_WITHDRAW, NO_REGIONS),
    Difference("test_passthrough::test_hot_unplug_*", "*-amd", NOTHING_TO_WITHDRAW, NO_REGIONS),
    Difference("test_passthrough::test_killed_*", "*-amd", NOTHING_TO_WITHDRAW, NO_REGIONS),
    Difference("test_renumbering::test_within_*", "*-amd", NOT_FOLLOWED, NAMED_BY_IVRS),
    Difference("test_renumbering::test_outside_*", "bookworm-*-amd", _NVME_DIES, MSI_BUG),
    Difference("test_renumbering::test_below_*", "*-amd", NOT_FOLLOWED, NAMED_BY_IVRS),
)


def difference(scene: str, cell: Cell) -> Difference | None:
    """Give the row for a scene (`module::name[parameters]`) in a cell, or None without one."""
    name = scene.split("[", maxsplit=1)[0]
    rows = (row for row in DIFFERENCES if fnmatchcase(name, row.scene) and fnmatchcase(cell.name, row.cell))
    return next(rows, None)


def table() -> str:
    """Return the table of all rows as Markdown, for docs/lab.md."""
    lines = ["| scene | cells | what | is | because |", "|---|---|---|---|---|"]
    for row in DIFFERENCES:
        how = "run, and fails" if row.runs else "skipped"
        lines.append(f"| `{row.scene}` | `{row.cell}` | {row.why} | {how} | {row.because} |")
    return "".join(f"{line}\n" for line in lines)
