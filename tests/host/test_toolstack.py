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
        ("nothing", "it is not bound to pciback after that"),
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
