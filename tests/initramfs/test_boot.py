"""What the initramfs does with the list: which of the kernel's files are written, when, and when none."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
BOOT = REPO / "initramfs/boot.sh"
PORT, NIC = "0000:00:1c.0", "0000:02:00.0"
LIST = "# head\n- 0000:00 0:1d.0/0:00.0 0x8086 - - - - - -\n- 0000:00 0:1c.0 port\n"
MODPROBE = """#!/bin/sh
echo "modprobe $*, override $(cat {nic}/driver_override)" >> {log}
mkdir -p {drivers}/pciback
: > {drivers}/pciback/new_slot
"""
SHOW = 'while read -r line <&4 && [ "$line" != end ]; do echo "$line"; done'  # a FIFO stands for /dev/kmsg


class Host:
    """The root of a host: a port, a NIC that is kept, and a modprobe that loads xen-pciback."""

    def __init__(self, root):
        self.root, self.log = root, root / "modprobe.log"
        self.devices, self.drivers = root / "sys/bus/pci/devices", root / "sys/bus/pci/drivers"
        self.nic = root / f"sys/devices/pci0000:00/0000:00:1d.0/{NIC}"
        for directory in ("dev", "run", "etc/pcipt", "bin", "sys/hypervisor/version"):
            (root / directory).mkdir(parents=True)
        (root / f"sys/devices/pci0000:00/{PORT}/pci_bus/0000:01").mkdir(parents=True)
        (root / "sys/devices/pci0000:00/0000:00:1d.0/pci_bus/0000:02").mkdir(parents=True)
        self.nic.mkdir()
        (self.nic / "vendor").write_text("0x8086\n")
        self.drivers.mkdir(parents=True)
        self.devices.mkdir()
        (self.devices / NIC).symlink_to(self.nic)
        (root / "etc/pcipt/passthrough.list").write_text(LIST)
        self.xen("PV", 4, 17)
        self.modprobe(MODPROBE.format(nic=self.nic, log=self.log, drivers=self.drivers))

    def xen(self, kind, major, minor):
        home = self.root / "sys/hypervisor"
        (home / "type").write_text("xen\n")
        (home / "guest_type").write_text(f"{kind}\n")
        (home / "version/major").write_text(f"{major}\n")
        (home / "version/minor").write_text(f"{minor}\n")

    def modprobe(self, text):
        (self.root / "bin/modprobe").write_text(text)
        (self.root / "bin/modprobe").chmod(0o755)

    def boot(self, *shell):
        """Run the script; give back what it told the kernel's log, line for line."""
        where = {"PATH": f"{self.root / 'bin'}:/usr/bin:/bin"}
        kmsg = self.root / "dev/kmsg"
        os.mkfifo(kmsg)
        words = " ".join([*(shell or ("sh",)), str(BOOT), str(self.root)])
        text = f"exec 3<>{kmsg}; {words}; code=$?; exec 4<{kmsg}; echo end >&3; {SHOW}; exit $code"
        done = subprocess.run(
            ["sh", "-c", text], capture_output=True, text=True, check=False, env=where, timeout=30
        )
        kmsg.unlink()
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    def written(self):
        """Give what the kernel's files got, by their names below sys/bus/pci."""
        files = {
            "drivers_probe": self.drivers.parent / "drivers_probe",
            "new_slot": self.drivers / "pciback/new_slot",
        }
        return {name: path.read_text() for name, path in files.items() if path.exists() and path.read_text()}


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path / "host")


TOLD = [
    f"<5>pcipt: kept for guests: kept {NIC} 0000:00/0:1d.0/0:00.0",
    f"<5>pcipt: policed port: {PORT} 0000:00/0:1c.0",
]


def test_what_is_kept_has_its_driver_and_ports_are_guarded(host):
    """The override comes first, so that the driver takes the function when it comes."""
    assert host.boot() == TOLD
    assert host.log.read_text() == "modprobe xen-pciback, override pciback\n"
    assert host.written() == {"new_slot": f"{PORT}\n", "drivers_probe": f"{NIC}\n"}
    assert (host.root / "run/pcipt.caught").read_text() == f"{NIC}\n"
    assert (host.root / "run/pcipt.guarded").read_text() == f"{PORT}\n"


def test_what_the_driver_took_by_itself_is_not_offered_again(host):
    loads = MODPROBE.format(nic=host.nic, log=host.log, drivers=host.drivers)
    host.modprobe(f"{loads}mkdir {host.nic}/driver\n")
    assert host.boot() == TOLD
    assert host.written() == {"new_slot": f"{PORT}\n"}


@pytest.mark.parametrize("kept", [True, False])
def test_what_dom0_may_run_from_is_not_offered(host, kept):
    """What is below a port at boot, and what came too late, gets no override and is not offered."""
    (host.root / "etc/pcipt/passthrough.list").write_text("- 0000:00 0:1d.0 port\n" + (LIST if kept else ""))
    (host.nic / "driver").mkdir()
    assert len(host.boot()) == (3 if kept else 1)
    assert not (host.nic / "driver_override").exists()
    assert "drivers_probe" not in host.written()
    assert not (host.root / "run/pcipt.caught").exists()


def test_without_xen_pciback_it_says_so(host):
    host.modprobe("#!/bin/sh\necho FATAL >&2\nexit 1\n")
    *told, last = host.boot()
    assert told == TOLD
    assert "cannot be loaded" in last
    assert host.written() == {}
    assert (host.nic / "driver_override").read_text() == "pciback\n"  # nobody has it


def test_a_policed_port_that_is_not_there_is_told_as_such(host):
    (host.root / "etc/pcipt/passthrough.list").write_text("- 0000:00 0:1b.0 port\n" + LIST)
    absent = "<5>pcipt: policed port, but no port is there: - 0000:00/0:1b.0"
    assert host.boot() == [absent, *TOLD]


def test_a_port_that_is_refused_is_told(host):
    host.modprobe(f"#!/bin/sh\nmkdir -p {host.drivers}/pciback/new_slot\n")
    assert host.boot()[2:] == [f"<5>pcipt: port {PORT} is not guarded: xen-pciback refuses it"]
    assert not (host.root / "run/pcipt.guarded").exists()


@pytest.mark.parametrize(
    ("kind", "major", "minor", "loads"),
    [
        ("PV", 4, 17, True), ("PV", 4, 20, True), ("PV", 5, 0, True), ("PVH", 4, 17, True),
        ("PVH", 4, 19, True), ("PVH", 4, 20, False),
        ("PVH", 4, 21, False), ("PVH", 5, 0, False), ("PVH", "?", "?", False),
    ],
)  # fmt: skip
def test_an_orphan_must_not_meet_the_driver_that_takes_the_host_down(host, kind, major, minor, loads):
    """With such a Xen the service asks first; the function is kept all the same."""
    host.xen(kind, major, minor)
    told = host.boot()
    assert told[:2] == TOLD
    assert host.log.exists() is loads
    assert any("left to the service" in line for line in told) is not loads


def test_a_list_with_nothing_in_it_loads_nothing(host):
    (host.root / "etc/pcipt/passthrough.list").write_text("# head\n")
    assert (host.boot(), host.log.exists()) == ([], False)


@pytest.mark.parametrize("missing", ["etc/pcipt/passthrough.list", "sys/hypervisor/type", "sys/hypervisor"])
def test_without_xen_or_a_list_nothing_is_done(host, missing):
    path = host.root / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert (host.boot(), host.log.exists()) == ([], False)


def test_another_hypervisor_is_not_xen(host):
    (host.root / "sys/hypervisor/type").write_text("other\n")
    assert host.boot() == []


def test_it_is_short_and_plain():
    text = BOOT.read_text()
    assert len(text.splitlines()) <= 100
    assert text.startswith("#!/bin/sh\n")


@pytest.mark.parametrize("program", ["dash", "busybox"])
def test_the_shells_of_an_initramfs_take_it(program, host):
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    assert host.boot(*([found, "sh"] if program == "busybox" else [found])) == TOLD
    assert host.written()["new_slot"] == f"{PORT}\n"
