"""The Debian package on small systems of both releases, and in dom0: installed, upgraded, purged."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .cell import SUITES
from .chroot import Chroot, copied, ensure_system
from .errors import MissingToolError
from .install import PACKAGE_IN_DOM0
from .machine import Dom0
from .package import build_in_system, build_package, find_package
from .steps import alike, answer

NEEDED = (
    "systemd",
    "python3",
    "python3-attr",
    "python3-cffi-backend",
    "python3-pyroute2",
    "python3-structlog",
)
#: What the package manager itself writes.
OF_APT = (
    "var/cache/apt",
    "var/lib/apt",
    "var/log/apt",
    "var/log/dpkg.log",
    "var/lib/dpkg",
    "var/cache/debconf",
)
INSTALL = ("apt-get", "install", "-y", "--no-install-recommends")

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="session")
def package(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepared = pytestconfig.getoption("--lab-prepared")
    return find_package(Path(prepared)) if prepared else build_package(tmp_path_factory.mktemp("package"))


@pytest.fixture
def system(request: pytest.FixtureRequest) -> Iterator[Chroot]:
    try:
        made = ensure_system(request.param, NEEDED)
    except MissingToolError as exc:
        pytest.skip(str(exc))
    with copied(made) as system:
        yield system


def files_of(system: Chroot) -> set[str]:
    """List all files but the package manager's own."""
    found = set()
    for folder, folders, names in os.walk(system.root):
        place = os.path.relpath(folder, system.root)
        if place.startswith(OF_APT):
            folders.clear()
            continue
        found |= {os.path.normpath(os.path.join(place, name)) for name in [*folders, *names]}
    return {name for name in found if not name.startswith((*OF_APT, "root/"))}


def newer(package: Path, folder: Path) -> Path:
    """Make the same package with a higher version and a settings file that says something new."""
    tree = folder / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(control.read_text().replace("\nVersion: ", "\nVersion: 999."))
    target = folder / "pcipt_999_amd64.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tree, target], check=True)
    return target


# One build must do for both releases, because the extension modules keep to the stable ABI.
@pytest.mark.parametrize("system", SUITES, indirect=True)
def test_it_installs_upgrades_and_leaves_nothing(system: Chroot, package: Path, tmp_path: Path) -> None:
    before = files_of(system)
    for path in (package, newer(package, tmp_path)):
        (system.root / "root" / path.name).write_bytes(path.read_bytes())

    system.run(*INSTALL, f"/root/{package.name}")
    assert system.run("pcipt", "--version").stdout.startswith("pcipt ")
    assert system.run("pcipt", "daemon", "--check-settings").returncode == 0
    assert system.run("pcipt", "status", check=False).returncode == 3
    assert system.run("getent", "group", "pcipt").stdout.startswith("pcipt:")
    enabled = system.root / "etc/systemd/system/multi-user.target.wants/pcipt.service"
    assert enabled.is_symlink()
    assert not (system.root / "etc/systemd/system/sockets.target.wants/pcipt.socket").is_symlink()

    settings, ledger = system.root / "etc/pcipt/pcipt.toml", system.root / "var/lib/pcipt/ledger"
    settings.write_text('mode = "observe"\n')
    ledger.parent.mkdir(exist_ok=True)
    ledger.write_text("kept")
    system.run("dpkg", "--install", "/root/pcipt_999_amd64.deb")
    assert settings.read_text() == 'mode = "observe"\n'
    assert ledger.read_text() == "kept"

    system.run("apt-get", "remove", "-y", "pcipt")
    assert (settings.exists(), ledger.exists()) == (True, True)
    assert not (system.root / "usr/bin/pcipt").exists()
    system.run("apt-get", "purge", "-y", "pcipt")
    assert files_of(system) - before == set()
    assert system.run("getent", "group", "pcipt", check=False).returncode == 2


def test_the_other_release_builds_it_too(tmp_path: Path) -> None:
    try:
        build_in_system(SUITES[1], tmp_path)
    except MissingToolError as exc:
        pytest.skip(str(exc))
    contents = ["dpkg-deb", "--contents", str(find_package(tmp_path))]
    listed = subprocess.run(contents, capture_output=True, text=True, check=True)
    assert "/usr/bin/pcipt\n" in listed.stdout


def test_an_upgrade_in_dom0_restarts_and_keeps_the_ledger(installed: Dom0) -> None:
    dom0 = installed
    alike(dom0)

    def held() -> tuple[list[str], int]:
        added = answer(dom0, "Status")["counts"]["added_by_us"]
        return dom0.run("ls /var/lib/pcipt").lines, added

    about = "systemctl show pcipt -p MainPID --value"
    pid, before = dom0.run(about).stdout, held()
    dom0.run(f"apt-get install -y --reinstall {PACKAGE_IN_DOM0}", timeout=600)
    dom0.run("systemctl is-active pcipt")
    assert dom0.run(about).stdout != pid
    assert held() == before
