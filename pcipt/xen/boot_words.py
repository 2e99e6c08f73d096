"""What Xen printed at boot about its IOMMU, and what its command line says of it. Pure.

Source: Xen drivers/passthrough/iommu.c (iommu_setup), vtd/dmar.c, vtd/iommu.c, vtd/intremap.c,
        amd/iommu_acpi.c, amd/iommu_init.c, amd/pci_amd_iommu.c; the words are the same in 4.17 to 4.22.
"""

import re

import attrs

from pcipt.xen.command_line import switch_in, whole_switch_in
from pcipt.xen.console import whole_lines

KEPT = 4
_IOMMU = re.compile(r"I/O virtualisation (en|dis)abled")
_REMAPPING = re.compile(r"Interrupt remapping (en|dis)abled")
_VTD, _AMD = re.compile(r"(\[VT-D\]|Intel VT-d )"), re.compile(r"AMD-Vi: |IVHD Error: ")
_FAILURES = re.compile(
    r"Failed to parse ACPI DMAR|Invalid ACPI DMAR entry|Only one (INCLUDE_ALL|ALL_PORTS)|Overlapping RMRRs|"
    r"RMRR \[[^]]*\] is incorrect|Invalid device scope|Invalid DMAR width|no CMPXCHG16B|"
    r"AMD-Vi: Error|IVHD Error: |Cannot find supported IVHD type|Too many IO APICs|"
    r"Unrecognized IVHD special|erratum 28|IOMMU: page size mask|There is not a DRHD for IOAPIC|"
    r"firmware does not support interrupt remapping|Failed to enable (Queued|Interrupt)"
)
_ANY = re.compile(r".*?(I/O virtualisation|Interrupt remapping|VT-[dD]|AMD-Vi|IVHD|IOMMU)")


@attrs.frozen
class BootWords:
    """What Xen said. None: the line is not there, because it was overwritten or the text begins later.

    `kind` is "VT-d" or "AMD-Vi" as Xen names its driver. `failures` are the first lines that say why there is
    no IOMMU or no interrupt remapping. `iommu_off`, `remap_off`: the words of the command line that switch
    the IOMMU or interrupt remapping off; empty if there are none.
    """

    iommu: bool | None = None
    remaps: bool | None = None
    kind: str | None = None
    failures: tuple[str, ...] = ()
    iommu_off: str = ""
    remap_off: str = ""

    def by(self, command_line: str) -> "BootWords":
        """Return these words with what a command line of Xen switches off."""
        switch = whole_switch_in(command_line, "iommu")
        intremap = switch_in(command_line, "iommu", "intremap")
        return attrs.evolve(
            self,
            iommu_off=switch[1] if switch is not None and not switch[0] else "",
            remap_off="iommu=no-intremap" if intremap is False else "",
        )


def parse_boot_words(text: str) -> BootWords:
    """Return what a text of Xen's console says about the IOMMU. Lines of guests are not looked at."""
    found = BootWords()
    for line in whole_lines(text.split("\n"), _ANY):
        if match := _IOMMU.match(line):
            found = attrs.evolve(found, iommu=match[1] == "en")
        elif match := _REMAPPING.match(line):
            found = attrs.evolve(found, remaps=match[1] == "en")
        elif found.kind is None and (_VTD.match(line) or _AMD.match(line)):
            found = attrs.evolve(found, kind="VT-d" if _VTD.match(line) else "AMD-Vi")
        if _FAILURES.search(line) and len(found.failures) < KEPT:
            found = attrs.evolve(found, failures=(*found.failures, line.strip()))
    return found
