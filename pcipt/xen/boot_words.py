"""What Xen printed at boot about its IOMMU, and what its command line says about passthrough. Pure.

Source: Xen drivers/passthrough/iommu.c (iommu_setup, parse_iommu_param), ats.c, pci.c (parse_phantom_dev),
        vtd/dmar.c, vtd/iommu.c, vtd/intremap.c, amd/iommu_acpi.c, amd/iommu_init.c, amd/pci_amd_iommu.c;
        arch/x86/setup.c (parse_acpi_param), arch/x86/msi.c; words and options are the same in 4.17 to 4.22.
"""

import itertools
import re
from collections.abc import Iterator, Mapping

from pcipt import values as attrs
from pcipt.xen.added_regions import AddedRegions, parse_added_regions
from pcipt.xen.command_line import NO, flag_in, switch_in, truth_in, values_in, whole_switch_in, words_in
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
_IO_APIC = re.compile(
    r"ivrs_ioapic\[(0x[0-9a-f]{1,8}|0[0-7]{0,8}|[1-9][0-9]{0,8})\]="
    r"(?:([0-9a-fA-F]{1,4}):)?([0-9a-fA-F]{1,4}):([0-9a-fA-F]{1,4})\.([0-7])"
)
_PHANTOM = re.compile(
    r"(?:([0-9a-fA-F]{1,4}):)?([0-9a-fA-F]{1,4}):([0-9a-fA-F]{1,4}),(?:0x|0)?([124])", re.ASCII
)
_MOST_PHANTOMS = 8
_ANY = re.compile(r".*?(I/O virtualisation|Interrupt remapping|VT-[dD]|AMD-Vi|IVHD|IOMMU)")


@attrs.frozen
class BootWords:
    """What Xen said. None: the line is not there, because it was overwritten or the text begins later.

    `kind` is "VT-d" or "AMD-Vi" as Xen names its driver. `failures` are the first lines that say why there is
    no IOMMU or no interrupt remapping. The rest is from the command line, which is known if `line_known`.
    `iommu_off`, `remap_off`: the words that switch the IOMMU or interrupt remapping off; empty if there are
    none. `queue_off`: the word that switches VT-d's queued invalidation off, without which it remaps no
    interrupts. `forced`: Xen would have stopped without an IOMMU (iommu=force, iommu=required). `per_device`
    is False with iommu=no-amd-iommu-perdev-intremap. `io_apics`: the routing ids with segment (segment << 16
    | bus << 8 | devfn) that ivrs_ioapic[] gives to IO-APICs, by their ids. `added`: the reserved regions
    that rmrr= and ivmd= add. `igfx` is False with
    iommu=no-igfx, `ats` is True with ats, `msi` is the value of msi=, None without it. `phantoms`: (segment,
    bus, device, stride) of each pci-phantom=, of which Xen takes the first eight.
    """

    iommu: bool | None = None
    remaps: bool | None = None
    kind: str | None = None
    failures: tuple[str, ...] = ()
    iommu_off: str = ""
    remap_off: str = ""
    queue_off: str = ""
    forced: bool = False
    per_device: bool = True
    io_apics: Mapping[int, int] = attrs.field(factory=dict)
    added: AddedRegions = AddedRegions()
    line_known: bool = False
    igfx: bool = True
    ats: bool = False
    msi: bool | None = None
    phantoms: tuple[tuple[int, int, int, int], ...] = ()

    def by(self, command_line: str | None) -> "BootWords":
        """Return these words with what a command line of Xen says; None if it is not known."""
        if command_line is None:
            return self
        switch = whole_switch_in(command_line, "iommu")
        off = switch[1] if switch is not None and not switch[0] else ""
        refused = {
            name: f"iommu=no-{name}" if switch_in(command_line, "iommu", name) is False else ""
            for name in ("intremap", "qinval", "igfx", "amd-iommu-perdev-intremap")
        }
        return attrs.evolve(
            self,
            iommu_off=off or _acpi_off(command_line),
            remap_off=refused["intremap"],
            queue_off=refused["qinval"],
            forced=switch_in(command_line, "iommu", "force", "required") is True,
            per_device=not refused["amd-iommu-perdev-intremap"],
            io_apics=dict(_io_apics(command_line)),
            added=parse_added_regions(command_line),
            line_known=True,
            igfx=not refused["igfx"],
            ats=flag_in(command_line, "ats"),
            msi=truth_in(command_line, "msi"),
            phantoms=tuple(itertools.islice(_phantoms(command_line), _MOST_PHANTOMS)),
        )


def _acpi_off(command_line: str) -> str:
    """Return the word with which Xen reads no ACPI table, so also none of the IOMMU; empty if there is none.

    "force" switches ACPI on again, and after it "ht" does not switch it off.
    Source: Xen arch/x86/setup.c (parse_acpi_param), drivers/passthrough/x86/iommu.c (acpi_iommu_init).
    """
    found, forced = "", False
    for word in words_in(command_line):
        value = "no" if word == "no-acpi" else word.removeprefix("acpi=") if word.startswith("acpi=") else ""
        if value in NO or (value == "ht" and not forced):
            found = word
        elif value == "force":
            found, forced = "", True
    return found


def _phantoms(command_line: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield (segment, bus, device, stride) of each option pci-phantom=[SEGMENT:]BUS:DEVICE,STRIDE."""
    for value in values_in(command_line, "pci-phantom"):
        if match := _PHANTOM.fullmatch(value):
            segment, bus, device = (int(part or "0", 16) for part in match.groups()[:3])
            if bus <= 0xFF and device <= 0x1F:
                yield segment, bus, device, int(match[4])


def _io_apics(command_line: str) -> Iterator[tuple[int, int]]:
    """Yield id and place of each IO-APIC that ivrs_ioapic[ID]=[SEGMENT:]BUS:DEVICE.FUNCTION names.

    Source: Xen drivers/passthrough/amd/iommu_acpi.c (parse_ivrs_ioapic), drivers/pci/pci.c (parse_pci).
    """
    for word in words_in(command_line):
        if match := _IO_APIC.fullmatch(word):
            segment, bus, device, function = (int(part or "0", 16) for part in match.groups()[1:])
            if bus <= 0xFF and device <= 0x1F:
                yield _number(match[1]), segment << 16 | bus << 8 | device << 3 | function


def _number(text: str) -> int:
    """Return a number as Xen reads it: 0x is hexadecimal, another leading 0 octal."""
    return int(text, 16 if text.startswith("0x") else 8 if text.startswith("0") else 10)


def lines_of_iommu(text: str) -> list[str]:
    """Return the lines of Xen's console that tell of the IOMMU, without what guests wrote."""
    lines = whole_lines(text.split("\n"), _ANY)
    return [f"(XEN) {line.strip()}" for line in lines if _ANY.match(line) or _FAILURES.search(line)]


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
