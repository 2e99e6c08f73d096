"""A policy for the second of two equal NICs, over three boots (`--hardware twins`).

First boot: `pcipt policy add`, and Debian's own initramfs is made with the hook in it. Second boot: a port
was added in front, so that all bus numbers are higher by one. Third boot: the two NICs have changed their
slots. Each boot goes on with the same disk and with the initramfs of the first.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from .cell import Cell, Extra
from .conftest import output_of, platform_of, prepared_of
from .errors import LabError
from .hardware import PARTS, SHIFTING, TWINS
from .image import Image, ensure_image, find_tool
from .install import install
from .machine import Dom0
from .prepared import payload_in
from .steps import driver_of, findings, wait_answers
from .test_igb import answers

PORTS = {"first": "00_0d.0", "second": "00_0e.0"}
PATHS = {name: f"{port}-00_00.0" for name, port in PORTS.items()}
BEFORE = {"first": "0000:1b:00.0", "second": "0000:1c:00.0"}
SHIFTED = {"first": "0000:1c:00.0", "second": "0000:1d:00.0"}
#: The buses with a function behind a port, but for those of the two NICs.
BUSES = tuple(int(part.sbdf[5:7], 16) for part in PARTS if part.words and part.sbdf[5:7] != "00")
#: The driver is in the initramfs too, which loads it by name: nothing but the hook comes before it.
INITRAMFS = """\
sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=gzip/' /etc/initramfs-tools/initramfs.conf
printf 'ahci\nsd_mod\next4\ne1000e\n' >> /etc/initramfs-tools/modules
sed -i 's/=no/=yes/' /etc/initramfs-tools/update-initramfs.conf
update-initramfs -c -k "$(uname -r)"
"""
INITRAMFS_SECONDS = 900.0
pytestmark = pytest.mark.timeout(1800)  # the first scene boots twice and makes an initramfs


@dataclass(frozen=True)
class Host:
    """What stays from boot to boot: the cell, the image with its kept disk, the payload and the records."""

    cell: Cell
    image: Image
    payload: Path
    output: Path

    @contextmanager
    def boot(self, hardware: str) -> Iterator[Dom0]:
        """Boot with this hardware; at the end everything that was written is on the disk."""
        dom0 = Dom0(self.cell, self.image, self.payload, self.output / hardware, Extra(hardware=hardware))
        try:
            dom0.start()
            yield dom0
            dom0.run("sync; echo u > /proc/sysrq-trigger; sleep 3")  # u: mount read-only
        finally:
            dom0.close()


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """Give a host on which the second NIC is kept for a guest, with the initramfs of this policy."""
    config = request.config
    if config.getoption("--hardware") != "twins":
        pytest.skip("this machine has no two equal NICs (--hardware twins)")
    folder = tmp_path_factory.mktemp("host")
    platform = platform_of(config)
    image = ensure_image(platform.suite)
    disk = folder / "root.img"
    subprocess.run(["cp", "--sparse=always", image.disk, disk], check=True)
    before = Host(
        Cell(platform, "pv"),
        Image(image.directory, installed=disk, kept=True),
        payload_in(prepared_of(config) or folder, with_package=True),
        output_of(config),
    )
    with before.boot("twins") as dom0:
        install(dom0)
        told = dom0.run(f"pcipt policy add {BEFORE['second']} --guest web").stdout
        assert f"{BEFORE['second']} ({PATHS['second']}" in told
        dom0.run(INITRAMFS, timeout=INITRAMFS_SECONDS)
        made = dom0.run("ls /boot/initrd.img-*").stdout.strip()
    booted = folder / "initrd"
    debugfs = find_tool("debugfs") or "debugfs"
    done = subprocess.run(
        [debugfs, "-R", f"dump {made} {booted}", disk], capture_output=True, text=True, check=False
    )
    if not booted.exists() or booted.stat().st_size == 0:
        raise LabError(f"{made} cannot be read from {disk}: {done.stderr.strip()}")
    shutil.copy(booted, before.output / "initrd")
    return Host(before.cell, Image(image.directory, disk, booted, kept=True), before.payload, before.output)


def probed(dom0: Dom0, sbdf: str) -> bool:
    """Tell whether the NIC's own driver has said anything of this function since the boot."""
    return f"e1000e {sbdf}" in dom0.run("dmesg").stdout


def assignable(dom0: Dom0) -> list[str]:
    """Give what xl has in quarantine, once the boot's units are done."""
    dom0.run("/etc/init.d/xen start || true; systemctl restart pcipt-policy || true", timeout=240)
    return dom0.run("xl pci-assignable-list").stdout.split()


def changes(dom0: Dom0) -> set[tuple[str, str | None, str | None]]:
    """Give what has another address since the boot before, by `pcipt diff`: kind, before, after."""
    done = dom0.run("pcipt diff --json", check=False)
    assert done.rc == 4, done
    told = {(each["kind"], each["before"], each["after"]) for each in done.json()["changes"]}
    return {each for each in told if each[0] not in ("group", "regions", "bars")}


def renumbered(before: int, after: int) -> set[tuple[str, str | None, str | None]]:
    """Give the functions behind ports, but for the two NICs; `before` and `after` are added to their bus."""
    return {("renumbered", f"0000:{bus + before:02x}:00.0", f"0000:{bus + after:02x}:00.0") for bus in BUSES}


def test_the_device_is_kept_at_its_new_address(host: Host) -> None:
    with host.boot("twins-shifted") as dom0:
        wait_answers(dom0)
        second, first = SHIFTED["second"], SHIFTED["first"]
        assert dom0.run("cat /run/pcipt.caught").stdout.split() == [second]
        assert assignable(dom0) == [second]
        assert not probed(dom0, second)
        assert (driver_of(dom0, second), driver_of(dom0, first)) == ("pciback", "e1000e")
        net = dom0.run(f"ls /sys/bus/pci/devices/{first}/net").stdout.strip()
        assert TWINS[0] in dom0.run(f"cat /sys/class/net/{net}/address").stdout
        assert answers(dom0, net)
        nics = {("renumbered", BEFORE[name], SHIFTED[name]) for name in PORTS}
        assert changes(dom0) == {("new", None, SHIFTING.sbdf), *renumbered(0, 1), *nics}
        assert dom0.run("pcipt policy check", check=False).rc == 4  # it has moved since the boot before


def test_neither_is_released_when_the_two_have_changed_their_slots(host: Host) -> None:
    with host.boot("twins-swapped") as dom0:
        wait_answers(dom0)
        assert dom0.run("cat /run/pcipt.caught", check=False).stdout == ""
        assert assignable(dom0) == []
        assert "another serial number" in findings(dom0, BEFORE["second"])["policy-mismatch"]
        checked = dom0.run("pcipt policy check --json", check=False)  # as root, so with serial numbers
        assert checked.rc == 4
        complaint = next(text for text in checked.json()["complaints"] if PATHS["second"] in text)
        serials = [f"{mac[:8]}:ff:ff:{mac[9:]}".replace(":", "-") for mac in TWINS]
        assert [serial for serial in serials if serial not in complaint] == []
        refused = dom0.run(f"pcipt release {BEFORE['second']}", check=False)
        assert refused.rc == 1
        assert "the policy keeps" in refused.stderr
        assert assignable(dom0) == []
        nics = {
            ("moved", SHIFTED["first"], BEFORE["second"]),
            ("moved", SHIFTED["second"], BEFORE["first"]),
        }
        assert changes(dom0) == {("gone", SHIFTING.sbdf, None), *renumbered(1, 0), *nics}
