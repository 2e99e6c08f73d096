import subprocess
import sys

import pytest

from pcipt.host.uevent_parser import bare_package, make_parser

MESSAGE = b"\0".join((b"add@/devices/pci0000:00/0000:00:1c.0", b"ACTION=add", b"SEQNUM=7", b""))

MAKE = "import pcipt.host.uevents as uevents; uevents.make_parser()"

#  what is run in a fresh interpreter -> what must hold then
FRESH = [
    ("import pcipt.host.uevents", "'asyncio' not in sys.modules"),  # what its sockets need
    (MAKE, "'sqlite3' not in sys.modules"),  # what its database needs
    (MAKE, "'pyroute2' not in sys.modules"),
    (f"{MAKE}; import pyroute2", "pyroute2.IPRoute"),
    (f"import pyroute2; {MAKE}", "pyroute2.IPRoute"),
]


def test_it_parses():
    (message,) = make_parser().parse(MESSAGE)
    assert (message["ACTION"], message["SEQNUM"]) == ("add", "7")


@pytest.mark.parametrize(("code", "holds"), FRESH)
def test_the_rest_of_the_package_is_neither_loaded_nor_spoilt(code, holds):
    run = [sys.executable, "-W", "error", "-c", f"import sys; {code}; assert {holds}"]
    assert subprocess.run(run, check=False, capture_output=True).stderr == b""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Make a package `pcipt_sample` whose own code fails, with a module that needs nothing of it."""
    home = tmp_path / "pcipt_sample"
    home.mkdir()
    (home / "__init__.py").write_text("whole = True\n")
    (home / "part.py").write_text("import pcipt_sample\nalone = not hasattr(pcipt_sample, 'whole')\n")
    (home / "needy.py").write_text("from pcipt_sample import whole\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "pcipt_sample"
    for name in [name for name in sys.modules if name.startswith("pcipt_sample")]:
        del sys.modules[name]


def test_a_part_is_imported_alone(package):
    with bare_package(package):
        from pcipt_sample.part import alone
    assert alone
    assert not [name for name in sys.modules if name.startswith(package)]


def test_a_part_that_needs_the_rest_fails_and_leaves_nothing_behind(package):
    with pytest.raises(ImportError), bare_package(package):
        import pcipt_sample.needy
    assert not [name for name in sys.modules if name.startswith(package)]
    import pcipt_sample.needy

    assert pcipt_sample.needy.whole


def test_a_package_that_is_there_stays_as_it_is(package):
    import pcipt_sample as before

    with bare_package(package):
        from pcipt_sample.part import alone
    assert not alone
    assert sys.modules[package] is before
