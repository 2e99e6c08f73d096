"""Fixtures of the lab. Nothing here is collected unless `--lab` (or PCIPT_LAB=1) asks for it.

All machines of a run boot at once, in the background, while the first one's scenes already run; where a scene
needs pcipt installed, that too happens behind the boot. One boot serves all scenes of a mode.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .aftermath import Decoded, wrong
from .cell import MODES, SUITES, VENDORS, Cell, Extra, Mode, Platform
from .differences import difference
from .errors import LabError, MissingToolError
from .fleet import Fleet
from .hardware import HOT, OTHER
from .machine import Dom0
from .steps import LEAVER, plug, unplug, wait_answer, wait_healthy

#: A scene's first fixture may wait for image, boot and installation.
SCENE_SECONDS = 1500
HERE = Path(__file__).parent
FLEET = pytest.StashKey[Fleet]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lab", "a real Xen in QEMU")
    group.addoption("--lab", action="store_true", help="run the tests that boot a real Xen")
    group.addoption("--lab-output", metavar="DIR", default=None, help="where records go (default: build/lab)")
    group.addoption(
        "--lab-prepared", metavar="DIR", default=None, help="what machines boot from (prepared.py)"
    )
    group.addoption("--mode", choices=MODES, default=None, help="only this kind of dom0")
    group.addoption("--suite", choices=SUITES, default=SUITES[0], help="dom0's release of Debian")
    group.addoption("--vendor", choices=VENDORS, default=VENDORS[0], help="the vendor of the IOMMU")
    group.addoption("--xen", metavar="WORDS", default="", help="more words for Xen's command line")
    group.addoption("--hardware", choices=[*OTHER], default="", help="what the machine has or lacks")
    group.addoption("--linux", metavar="WORDS", default="", help="boot Linux without Xen, with these words")


def wanted(config: pytest.Config) -> bool:
    return bool(config.getoption("--lab", default=False)) or os.environ.get("PCIPT_LAB") == "1"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return None if wanted(config) else True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "dom0" in metafunc.fixturenames:
        only: Mode | None = metafunc.config.getoption("--mode", default=None)
        modes = [only] if only else list(MODES)
        metafunc.parametrize("dom0", modes, indirect=True, scope="session")


def mode_of(item: pytest.Item) -> Mode | None:
    """Tell which machine an item of the lab wants; others may have parameters of the same name."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or not item.path.is_relative_to(HERE):
        return None
    mode: Mode | None = callspec.params.get("dom0")
    return mode


def platform_of(config: pytest.Config) -> Platform:
    """Tell which release and vendor this run is about."""
    return Platform(
        config.getoption("--suite", default=SUITES[0]), config.getoption("--vendor", default=VENDORS[0])
    )


def output_of(config: pytest.Config) -> Path:
    """Give the folder for the records of this run."""
    return Path(config.getoption("--lab-output", default=None) or config.rootpath / "build" / "lab")


def prepared_of(config: pytest.Config) -> Path | None:
    """Give the folder with what machines boot from, if several runs share one."""
    named = config.getoption("--lab-prepared", default=None)
    return Path(named) if named else None


def wants_installation(item: pytest.Item) -> bool:
    return "installed" in getattr(item, "fixturenames", ())


def pytest_report_header(config: pytest.Config) -> str | None:
    return None if wanted(config) else "lab: left out, the tests that boot a real Xen need --lab"


def is_fresh(item: pytest.Item) -> bool:
    """Tell whether a scene wants the machine as it booted: Xen keeps BARs mapped after a hot unplug."""
    return item.get_closest_marker("fresh") is not None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--mode", default=None) in MODES[1:]:  # the other kind's run has what needs no dom0
        items[:] = [item for item in items if mode_of(item) or not item.path.is_relative_to(HERE)]
    items.sort(key=lambda item: (MODES.index(mode) if (mode := mode_of(item)) else -1, not is_fresh(item)))
    for item in items:
        if mode_of(item) and not wanted(config):  # the file was named on the command line
            item.add_marker(pytest.mark.skip(reason="boots a real Xen: give --lab"))
        elif mode := mode_of(item):
            if config.pluginmanager.hasplugin("timeout"):
                item.add_marker(pytest.mark.timeout(SCENE_SECONDS))
            expected = difference(f"{item.path.stem}::{item.name}", Cell(platform_of(config), mode))
            if expected is not None:
                item.add_marker(expected.mark())


def pytest_collection_finish(session: pytest.Session) -> None:
    modes = list(dict.fromkeys(mode for item in session.items if (mode := mode_of(item))))
    if not modes or not wanted(session.config) or session.config.option.collectonly:
        return
    install = {
        mode: any(mode_of(item) == mode and wants_installation(item) for item in session.items)
        for mode in modes
    }
    session.config.stash[FLEET] = Fleet(
        install,
        output_of(session.config),
        prepared_of(session.config),
        platform_of(session.config),
        Extra(*(session.config.getoption(f"--{name}", default="") for name in ("xen", "hardware", "linux"))),
    )


@pytest.fixture(scope="session")
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    fleet = request.config.stash[FLEET]
    try:
        fleet.open()
    except LabError as exc:
        pytest.fail(str(exc), pytrace=False)
    yield fleet
    fleet.close()


@pytest.fixture(scope="session")
def dom0(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[Dom0]:
    """Give a booted machine; `request.param` is its mode."""
    mode: Mode = request.param
    machine: Dom0 | None = None
    try:
        machine = fleet.machine(mode)
    except LabError as exc:
        why: LabError = exc
    if machine is None:
        if isinstance(why, MissingToolError) and os.environ.get("PCIPT_REQUIRE_XEN") != "1":
            pytest.skip(str(why))
        pytest.fail(str(why), pytrace=False)
    yield machine
    fleet.release(mode)


@pytest.fixture(autouse=True)
def alive(request: pytest.FixtureRequest) -> None:
    """Fail at once, and shortly, what comes after the death of its machine."""
    if "dom0" in request.fixturenames:
        machine: Dom0 = request.getfixturevalue("dom0")
        if machine.dead is not None:
            pytest.fail(f"not run: {machine.dead.why} in an earlier test", pytrace=False)


@pytest.fixture(scope="session")
def installed(dom0: Dom0, fleet: Fleet) -> Dom0:
    """Give a machine in which pcipt is installed as a user would install it, and its service runs."""
    try:
        fleet.installation(dom0.mode)
    except LabError as exc:
        pytest.fail(str(exc), pytrace=False)
    return dom0


@pytest.fixture(scope="session")
def decoded(installed: Dom0) -> Decoded:
    """Give what QEMU has told of this machine's BARs; `Decoded.follow` reads on."""
    return Decoded()


@pytest.fixture(autouse=True)
def aftermath(request: pytest.FixtureRequest) -> Iterator[None]:
    """Look from outside, after each scene that passed, whether the machine, Xen and dom0's map agree."""
    if "installed" not in request.fixturenames:
        yield
        return
    dom0: Dom0 = request.getfixturevalue("installed")
    record: Decoded = request.getfixturevalue("decoded")
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed == failed and dom0.dead is None:
        assert wrong(dom0, record) == []


@pytest.fixture
def plugged(installed: Dom0) -> Iterator[Dom0]:
    """Plug a NIC in, and see that nothing of it is left afterwards."""
    dom0 = installed
    plug(dom0, "e1000e", LEAVER)
    dom0.wait_for(f"test -e /sys/bus/pci/devices/{HOT}/driver", timeout=120)
    wait_answer(dom0, "it['counts']['known_to_xen'] == it['counts']['functions']")
    yield dom0
    if LEAVER in {part["name"] for part in dom0.qmp("qom-list", path="/machine/peripheral")}:
        unplug(dom0, LEAVER)
    wait_healthy(dom0)
