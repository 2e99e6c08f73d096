"""xl as a shell script that edits a made-up sysfs; what it leaves undone is found there."""

import os
import time

import pytest

from pcipt.errors import InputError, UnsupportedError
from pcipt.host.live import LinuxHost
from pcipt.host.toolstack import PCIBACK, Toolstack, read_console, read_xl_info
from pcipt.pci import parse_sbdf
from tests.toolstack import NIC, fake_toolstack

SBDF = parse_sbdf(NIC)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    return fake_toolstack(tmp_path, monkeypatch)


def test_a_function_goes_and_comes_back_to_its_driver(fake):
    toolstack = Toolstack(str(fake.root))
    toolstack.require()
    assert not toolstack.has_pciback
    toolstack.load_pciback()
    assert (toolstack.has_pciback, toolstack.driver(SBDF)) == (True, "e1000e")
    toolstack.give(SBDF)
    assert toolstack.driver(SBDF) == PCIBACK
    toolstack.take_back(SBDF)
    assert toolstack.driver(SBDF) == "e1000e"
    toolstack.unload_pciback()
    assert not toolstack.has_pciback


def test_a_driver_that_xl_did_not_note_is_bound_by_hand(fake):
    toolstack = Toolstack(str(fake.root))
    toolstack.load_pciback()
    fake.drive(NIC, PCIBACK)
    toolstack.take_back(SBDF, "e1000e")
    assert (fake.root / "sys/bus/pci/drivers/e1000e/bind").read_text() == NIC


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("refuse", f"xl pci-assignable-add {NIC}: libxl: error: it cannot"),  # the last thing it says
        ("silent", f"xl pci-assignable-add {NIC}: it failed with 3"),
        ("nothing", "the function is not bound to pciback after this command"),
    ],
)
def test_xl_that_fails_is_quoted(fake, trouble, words):
    fake.make(trouble, NIC)
    with pytest.raises(InputError, match=words):
        Toolstack(str(fake.root)).give(SBDF)


def test_xl_that_does_not_give_back_is_found_out(fake):
    fake.drive(NIC, PCIBACK)
    fake.make("nothing", NIC)
    with pytest.raises(InputError, match="still bound to pciback"):
        Toolstack(str(fake.root)).take_back(SBDF)


def test_a_module_that_brings_no_driver(fake):
    fake.make("refuse", "xen-pciback")
    with pytest.raises(InputError, match="modprobe xen-pciback"):
        Toolstack(str(fake.root)).load_pciback()


def test_without_a_toolstack(fake, monkeypatch):
    monkeypatch.setenv("PATH", str(fake.root))
    monkeypatch.setattr("pcipt.host.toolstack._DIRECTORIES", ())
    with pytest.raises(UnsupportedError, match="xl: it is not installed"):
        Toolstack().require()


def test_a_function_without_a_driver_or_none_at_all(fake):
    toolstack = Toolstack(str(fake.root))
    assert toolstack.driver(parse_sbdf("00:1f.7")) is None
    with pytest.raises(InputError, match="bind"):
        toolstack.bind(SBDF, "nobody")


class Asked:
    """A sysfs with the two files by which Linux is asked to find a driver."""

    def __init__(self, tmp_path, autoprobe="1\n"):
        self.root = tmp_path
        folder = tmp_path / "sys/bus/pci"
        folder.mkdir(parents=True)
        self.file = folder / "drivers_probe"
        self.file.write_text("")
        (folder / "drivers_autoprobe").write_text(autoprobe)

    def wait(self):
        for _ in range(500):
            if self.file.read_text():
                break
            time.sleep(0.01)
        return self.file.read_text()


def test_linux_is_asked_to_find_a_driver_and_not_waited_for(tmp_path):
    asked = Asked(tmp_path)
    asked.file.unlink()
    os.mkfifo(asked.file)  # whoever opens it waits, as in a driver's probe that takes long
    host = LinuxHost(str(tmp_path))
    host.probe(SBDF)
    (process,) = host._toolstack._probes
    assert process.poll() is None
    with open(asked.file, encoding="ascii") as file:
        assert file.read() == NIC
    assert process.wait(10) == 0


def test_a_second_question_follows_the_first(tmp_path):
    asked, toolstack = Asked(tmp_path), Toolstack(str(tmp_path))
    toolstack.start_probe(SBDF)
    assert asked.wait() == NIC
    asked.file.write_text("")
    toolstack.start_probe(parse_sbdf("0000:03:00.0"))
    assert asked.wait() == "0000:03:00.0"
    assert len(toolstack._probes) <= 2
    for process in toolstack._probes:
        assert process.wait(10) == 0


def test_where_linux_binds_no_drivers_by_itself_it_is_not_asked(tmp_path):
    toolstack = Toolstack(str(Asked(tmp_path, "0\n").root))
    toolstack.start_probe(SBDF)
    assert toolstack._probes == []


@pytest.mark.parametrize("missing", ["drivers_probe", "drivers_autoprobe"])
def test_a_linux_without_such_files_is_an_error(tmp_path, missing):
    (Asked(tmp_path).file.parent / missing).unlink()
    with pytest.raises(InputError, match="drivers_probe: no such file"):
        Toolstack(str(tmp_path)).start_probe(SBDF)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("echo 'host : dom0'; echo 'xen_commandline        : dom0=pvh dom0-iommu=no-map-reserved'",
         "dom0=pvh dom0-iommu=no-map-reserved"),
        ("echo 'xen_commandline        : placeholder a:b'", "placeholder a:b"),
        ("echo 'host : dom0'", None),
        ("exit 1", None),
    ],
)  # fmt: skip
def test_the_command_line_of_xen(said, expected, tmp_path, monkeypatch):
    script = tmp_path / "xl"
    script.write_text(f"#!/bin/sh\n{said}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert read_xl_info().get("xen_commandline") == expected
    script.unlink()
    monkeypatch.setattr("pcipt.host.toolstack._DIRECTORIES", ())
    assert read_xl_info() == {}
    assert read_console() == ""


@pytest.fixture
def pciback(fake):
    """Load xen-pciback, and let its files be read and written."""
    directory = fake.root / "sys/bus/pci/drivers/pciback"
    directory.mkdir()
    for name in ("slots", "new_slot", "remove_slot"):
        (directory / name).write_text("")
    return directory


def test_the_list_of_xen_pciback_is_read(fake, pciback):
    (pciback / "slots").write_text("0000:00:1c.0\n0001:02:03.4\n")
    assert Toolstack(str(fake.root)).guarded_ports() == {parse_sbdf("00:1c.0"), parse_sbdf("0001:02:03.4")}


def test_without_xen_pciback_there_is_no_list_and_no_port_is_guarded(fake):
    toolstack = Toolstack(str(fake.root))
    assert toolstack.guarded_ports() is None
    with pytest.raises(InputError, match="new_slot: no such file"):
        toolstack.guard_port(SBDF, on=True)


@pytest.mark.parametrize(("on", "file"), [(True, "new_slot"), (False, "remove_slot")])
def test_a_port_is_put_into_the_list_or_taken_out(fake, pciback, on, file):
    Toolstack(str(fake.root)).guard_port(SBDF, on=on)
    assert [path.name for path in sorted(pciback.iterdir()) if path.read_text()] == [file]
    assert (pciback / file).read_text() == NIC


def test_a_driver_is_looked_for_past_the_ports_which_are_guarded_again_afterwards(fake, pciback):
    Toolstack(str(fake.root)).probe_past(SBDF, [parse_sbdf("00:1c.0")])
    assert (fake.root / "sys/bus/pci/drivers_probe").read_text() == NIC
    assert (pciback / "remove_slot").read_text() == (pciback / "new_slot").read_text() == "0000:00:1c.0"


def test_ports_are_guarded_again_also_if_linux_refuses_to_look(fake, pciback):
    (fake.root / "sys/bus/pci/drivers_probe").unlink()
    (fake.root / "sys/bus/pci/drivers_probe").mkdir()
    with pytest.raises(InputError):
        Toolstack(str(fake.root)).probe_past(SBDF, [parse_sbdf("00:1c.0")])
    assert (pciback / "new_slot").read_text() == "0000:00:1c.0"


@pytest.fixture
def starting(fake, pciback):
    """Give a toolstack; what it has started is read to its end afterwards."""
    toolstack = Toolstack(str(fake.root))
    yield toolstack
    for process in toolstack._gives.values():
        process.communicate(timeout=10)


def wait_for(toolstack, address):
    toolstack._gives[address].wait(10)


def test_a_quarantine_is_begun_and_not_waited_for(fake, starting):
    toolstack = starting
    toolstack.start_give(SBDF)
    wait_for(toolstack, SBDF)
    assert toolstack.driver(SBDF) == PCIBACK
    toolstack.start_give(SBDF)  # it may be asked for again
    wait_for(toolstack, SBDF)
    assert fake.log() == [f"pci-assignable-add {NIC}"] * 2


def test_what_xl_said_when_it_failed_is_told_at_the_next_call_and_then_it_is_started_again(fake, starting):
    toolstack = starting
    fake.make("refuse", NIC)
    toolstack.start_give(SBDF)
    wait_for(toolstack, SBDF)
    with pytest.raises(InputError, match=f"xl pci-assignable-add {NIC}: libxl: error: it cannot"):
        toolstack.start_give(SBDF)
    fake.make("", NIC)
    toolstack.start_give(SBDF)
    wait_for(toolstack, SBDF)
    assert toolstack.driver(SBDF) == PCIBACK


def test_xl_is_not_started_twice_for_one_function(fake, starting):
    toolstack = starting
    os.mkfifo(fake.root / f"trouble-{NIC}")  # xl waits for it
    toolstack.start_give(SBDF)
    with pytest.raises(InputError, match="the command has not ended yet"):
        toolstack.start_give(SBDF)
    (fake.root / f"trouble-{NIC}").write_text("")
    wait_for(toolstack, SBDF)
    assert fake.log() == [f"pci-assignable-add {NIC}"]


def test_without_xl_nothing_is_begun(fake, monkeypatch):
    monkeypatch.setattr("pcipt.host.toolstack._DIRECTORIES", ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnsupportedError):
        Toolstack(str(fake.root)).start_give(SBDF)


@pytest.mark.parametrize(
    ("class_code", "usb4"), [("0x0c0340\n", True), ("0x0c0330\n", False), ("", False), (None, False)]
)
def test_a_port_that_linux_has_linked_with_a_usb4_host_interface_is_known(fake, class_code, usb4):
    devices = fake.root / "sys/bus/pci/devices"
    (devices / NIC / "supplier:pci:0000:00:0d.2").write_text("")
    if class_code is not None:
        (devices / "0000:00:0d.2").mkdir()
        (devices / "0000:00:0d.2/class").write_text(class_code)
    assert Toolstack(str(fake.root)).is_usb4_port(SBDF) is usb4
    assert not Toolstack(str(fake.root)).is_usb4_port(parse_sbdf("00:1f.7"))
