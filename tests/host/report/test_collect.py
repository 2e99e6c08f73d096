"""Which lines of logs belong into a report, and what is said where there is none."""

import os
import stat

import pytest

from pcipt.host.report.collect import collect_parts, masks_for, relevant

TOLD = [
    "(XEN) Xen version 4.17.4 (Debian)", "(XEN) Intel VT-d iommu 0 supported page sizes: 4kB, 2MB and 1GB",
    "[    1.2] pci 0000:00:03.0: BAR 0 [mem 0xfe000000-0xfe01ffff]", "[ 1.3] DMAR: RMRR base: 0x7fff0000",
    "[    0.1] BIOS-e820: [mem 0x0-0x9ffff] usable", "pcipt: add-device 0000:03:00.0: done",
]  # fmt: skip
SECRET = [
    "[    0.0] Command line: root=/dev/sda1 password=x pci=noacs", "[    0.0] Kernel command line: pci=nomsi",
    "(XEN) Command line: dom0_mem=1G pci-phantom=1", "ACPI: MSDM 0x000000007FFD0000 000055 pci",
    "[    5.0] usb 1-1: new device", "sshd: session opened for user alice", "BOOT_IMAGE=/vmlinuz iommu=on",
]  # fmt: skip


def test_the_lines_that_are_about_pci_and_no_command_line():
    assert relevant("\n".join(sorted([*TOLD, *SECRET]))).splitlines() == sorted(TOLD)


def test_of_a_recorded_machine_no_log_is_read(tmp_path):
    parts = {part.name: part for part in collect_parts(str(tmp_path), live=False)}
    assert {name: part.text for name, part in parts.items()} == {"settings.toml": None, "os-release": None}
    assert all(part.why for part in parts.values())


@pytest.mark.parametrize(
    ("journalctl", "dmesg", "text", "why"),
    [
        ("echo 'pci 1'; echo other", "echo 'pci 2'", "pci 1\n", ""),
        ("exit 1", "echo 'pci 2'", "pci 2\n", ""),
        (None, "echo 'pci 2'", "pci 2\n", ""),
        ("echo no >&2; exit 1", "echo denied >&2; exit 1", None, "denied"),
        (None, None, None, "journalctl is not installed"),
    ],
)
def test_the_kernels_log_is_that_of_the_first_command_that_works(
    tmp_path, monkeypatch, journalctl, dmesg, text, why
):
    for name, script in (("journalctl", journalctl), ("dmesg", dmesg)):
        if script is not None:
            (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
            os.chmod(tmp_path / name, stat.S_IRWXU)
    monkeypatch.setenv("PATH", str(tmp_path))
    parts = {part.name: part for part in collect_parts("/", live=True)}
    assert (parts["kernel.log"].text, parts["kernel.log"].why) == (text, why)
    assert parts["xen.log"].why == "xl is not installed"


def test_masks_know_the_host(tmp_path):
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/hostname").write_text("alphahost\n")
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("b007b007-0000-1111-2222-333344445555\n")
    text = "alphahost b007b007-0000-1111-2222-333344445555"
    assert masks_for(str(tmp_path)).text(text) == "host-1 00000000-0000-4000-8000-000000000001"
