"""What Xen printed at boot about its IOMMU, and the words of its command line."""

import pytest

from pcipt.xen.boot_words import BootWords, parse_boot_words

VTD = """\
(XEN) [VT-D]Host address width 39
(XEN) Intel VT-d iommu 0 supported page sizes: 4kB, 2MB
(XEN) Intel VT-d Interrupt Remapping enabled.
(XEN) I/O virtualisation enabled
(XEN)  - Dom0 mode: Relaxed
(XEN) Interrupt remapping enabled
"""
AMD = """\
(XEN) [2026-11-22 10:00:00.123] AMD-Vi: IOMMU Extended Features:
(XEN) [2026-11-22 10:00:00.124] AMD-Vi: IOMMU 0 Enabled.
(XEN) [2026-11-22 10:00:00.125] I/O virtualisation enabled
(XEN) [2026-11-22 10:00:00.126]  - Dom0 mode: Relaxed
(XEN) [2026-11-22 10:00:00.127] Interrupt remapping disabled
"""
REFUSED = """\
(XEN) IVHD Error: no information for IO-APIC 0x82
(XEN) AMD-Vi: Error initialization
(XEN) I/O virtualisation disabled
"""
PARSE = """\
(XEN) [VT-D]dmar.c:838:  Failed to parse ACPI DMAR.  Disabling VT-d.
(XEN) I/O virtualisation disabled
"""
FAILED = "Failed to enable Interrupt Remapping!"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", BootWords()),
        (VTD, BootWords(True, True, "VT-d")),
        (AMD, BootWords(True, False, "AMD-Vi")),
        (REFUSED, BootWords(False, None, "AMD-Vi",
                            ("IVHD Error: no information for IO-APIC 0x82", "AMD-Vi: Error initialization"))),
        (PARSE, BootWords(False, None, "VT-d",
                          ("[VT-D]dmar.c:838:  Failed to parse ACPI DMAR.  Disabling VT-d.",))),
        ("(XEN) Interrupt remapping enabled\n", BootWords(remaps=True)),  # the line before is overwritten
        ("(d3) (XEN) I/O virtualisation disabled\n", BootWords()),  # a guest chose this text
        (f"(XEN) {FAILED}\n", BootWords(failures=(FAILED,))),
    ],
)  # fmt: skip
def test_the_words(text, words):
    assert parse_boot_words(text) == words


def test_only_the_first_failures_are_kept():
    text = "".join(f"(XEN) IVHD Error: number {number}\n" for number in range(9))
    assert parse_boot_words(text).failures == tuple(f"IVHD Error: number {number}" for number in range(4))


@pytest.mark.parametrize(
    ("line", "iommu_off", "remap_off"),
    [
        ("", "", ""),
        ("iommu", "", ""),  # a value is needed
        ("iommu=verbose,no-sharept", "", ""),
        ("iommu=off", "iommu=off", ""),
        ("com1=115200 iommu=no,verbose dom0=pvh", "iommu=no", ""),
        ("iommu=0 iommu=1", "", ""),  # the last one counts
        ("iommu=on,disable", "iommu=disable", ""),
        ("no-iommu", "no-iommu", ""),
        ("iommu=no-intremap", "", "iommu=no-intremap"),
        ("iommu=intremap=off", "", "iommu=no-intremap"),
        ("iommu=no,no-intremap", "iommu=no", "iommu=no-intremap"),
        ("dom0-iommu=none -- iommu=off", "", ""),  # behind it is dom0's
        ("acpi=off", "acpi=off", ""),
        ("no-acpi", "no-acpi", ""),
        ("acpi=ht", "acpi=ht", ""),
        ("acpi=off acpi=force", "", ""),
        ("acpi=force acpi=ht", "", ""),
        ("acpi=force acpi=no", "acpi=no", ""),
        ("acpi=verbose acpi=noirq acpi", "", ""),
        ("acpi=off iommu=off", "iommu=off", ""),
        ("iommu=force,off", "iommu=off", ""),
    ],
)
def test_what_a_command_line_switches_off(line, iommu_off, remap_off):
    words = parse_boot_words(VTD).by(line)
    assert (words.iommu_off, words.remap_off) == (iommu_off, remap_off)
    assert words.iommu is True


@pytest.mark.parametrize(
    ("line", "per_device", "io_apics"),
    [
        ("iommu=no-amd-iommu-perdev-intremap", False, {}),
        ("ivrs_ioapic[7]=00:14.0", True, {7: 0xA0}),
        ("ivrs_ioapic[0x82]=0001:c0:00.1 ivrs_ioapic[010]=0:1f.7", True, {0x82: 0x1C001, 8: 0xFF}),
        ("ivrs_ioapic[7]=00:14.0 ivrs_ioapic[7]=00:15.0", True, {7: 0xA8}),  # the last one counts
        ("ivrs_ioapic[7]=14.0 ivrs_ioapic[8]=100:00.0 ivrs_ioapic[9]=00:20.0 ivrs_ioapic=00:14.0", True, {}),
        ("-- ivrs_ioapic[7]=00:14.0", True, {}),
    ],
)
def test_options_that_change_what_xen_makes_of_the_tables(line, per_device, io_apics):
    words = BootWords().by(line)
    assert (words.per_device, words.io_apics) == (per_device, io_apics)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", {}),
        ("iommu=force", {"forced": True}),
        ("iommu=required,verbose", {"forced": True}),
        ("iommu=force,no-required", {"forced": False}),  # two names of one switch
        ("iommu=no-force iommu=required=1", {"forced": True}),
        ("iommu=no-qinval", {"queue_off": "iommu=no-qinval"}),
        ("iommu=qinval=0,qinval", {"queue_off": ""}),
        ("iommu=no-igfx", {"igfx": False}),
        ("iommu=igfx=off", {"igfx": False}),
        ("no-igfx igfx=off", {"igfx": True}),
        ("ats", {"ats": True}),
        ("ats=1 no-ats", {"ats": False}),
        ("ats=off", {"ats": False}),
        ("msi=off", {"msi": False}),
        ("msi=0", {"msi": False}),
        ("no-msi", {"msi": False}),
        ("no-msi msi", {"msi": True}),
        ("msi=maybe", {"msi": None}),
        ("pci-phantom=3:0,1 pci-phantom=0001:0a:1f,4", {"phantoms": ((0, 3, 0, 1), (1, 10, 31, 4))}),
        ("pci-phantom=03:00.0,1 pci-phantom=100:0,1 pci-phantom=3:20,1 pci-phantom=3:0", {"phantoms": ()}),
        ("-- ats msi=off pci-phantom=3:0,1", {"ats": False, "msi": None, "phantoms": ()}),
    ],
)
def test_options_that_decide_about_passthrough(line, expected):
    words = BootWords().by(line)
    assert words.line_known
    assert {name: getattr(words, name) for name in expected} == expected


def test_a_command_line_that_is_not_known_says_nothing():
    assert parse_boot_words(VTD).by(None) == parse_boot_words(VTD)
    assert not parse_boot_words(VTD).by(None).line_known
