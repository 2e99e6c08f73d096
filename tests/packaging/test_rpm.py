"""The RPMs: one spec for two Pythons, no error of rpmlint, and all that Debian's package has."""

import os
import re
import subprocess
import sys

import pytest

from pcipt import __version__
from tests.packaging.test_deb import CONTENTS

MINORS = ("3.13", "3.11")
LIBRARIES = ("attrs", "cffi", "pyroute2", "structlog")
#  where distributions put things differently: Debian's place, that of the RPM
PLACES = (
    (r"\./(usr/)?lib/systemd", "./usr/lib/systemd"),
    (r"\./usr/lib/python3/dist-packages/", "./usr/lib/pcipt/"),
    (r"\./usr/share/zsh/vendor-completions", "./usr/share/zsh/site-functions"),
)
#  a library that is executable is what rpm's tools expect
MODES = {".so": "-rwxr-xr-x"}


@pytest.fixture(scope="session")
def packages(checkout, tmp_path_factory):
    if not os.path.exists("/usr/bin/rpmbuild"):
        pytest.skip("rpmbuild is not installed (Debian: rpm)")
    target = tmp_path_factory.mktemp("rpm")
    build = ["sh", "scripts/build-rpm.sh", str(target), sys.executable]
    done = subprocess.run(build, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {minor: next(target.glob(f"*py{minor.replace('.', '')}.*.rpm")) for minor in MINORS}


@pytest.fixture(scope="session")
def roots(packages, tmp_path_factory):
    """Install each package into an empty root, as rpm does, without its scripts: there is no shell in it."""
    found = {}
    for minor, package in packages.items():
        root = tmp_path_factory.mktemp(f"root{minor}")
        words = ["rpm", "--root", str(root), "-i", "--nodeps", "--noscripts", "--noplugins", str(package)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found[minor] = root
    return found


def ask(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("minor", MINORS)
def test_it_needs_the_libraries_of_its_python(packages, minor):
    needed = ask("rpm", "-qp", "--requires", str(packages[minor])).splitlines()
    assert f"python(abi) = {minor}" in needed
    assert f"/usr/bin/python{minor}" in needed
    for library in LIBRARIES:
        assert [line for line in needed if line.startswith(f"python{minor}dist({library}) >= ")]
    # the glibc of RHEL 9, XenServer 9's kin, is 2.34
    versions = [tuple(map(int, v.split("."))) for v in re.findall(r"GLIBC_([0-9.]+)", "\n".join(needed))]
    assert max(versions) <= (2, 34)
    assert not [line for line in needed if "xen" in line.lower()]
    assert "xen-libs" in ask("rpm", "-qp", "--recommends", str(packages[minor]))


@pytest.mark.parametrize("minor", MINORS)
def test_it_holds_what_debians_package_holds(packages, minor):
    lines = ask("rpm", "-qp", "--queryformat", "[%{FILEMODES:perms} .%{FILENAMES}\n]", str(packages[minor]))
    listed = [line.split(maxsplit=1) for line in lines.splitlines()]
    for of_debian, mode in CONTENTS:
        pattern = of_debian
        for there, here in PLACES:
            pattern = pattern.replace(there, re.escape(here))
        wanted = next((other for end, other in MODES.items() if pattern.endswith(rf"\{end}")), mode)
        assert [mode for mode, path in listed if re.fullmatch(pattern, path)] == [wanted], pattern
    unwanted = re.compile(r"__pycache__|/tests/|/usr/local|\.egg-info|\.pyc")
    assert [path for _, path in listed if unwanted.search(path)] == []


@pytest.mark.parametrize("minor", MINORS)
def test_the_settings_stay_and_the_group_is_made(packages, minor):
    assert ask("rpm", "-qp", "--configfiles", str(packages[minor])).split() == ["/etc/pcipt/pcipt.toml"]
    scripts = ask("rpm", "-qp", "--scripts", str(packages[minor]))
    for wanted in (
        "systemd-sysusers pcipt.conf",
        "systemd-tmpfiles --create pcipt.conf",
        "preset pcipt.service",
    ):
        assert wanted in scripts


def test_both_hold_the_same_but_for_the_first_line(packages):
    listed = [ask("rpm", "-qp", "--queryformat", "[%{FILENAMES}\n]", str(each)) for each in packages.values()]
    assert listed[0] == listed[1]


@pytest.mark.parametrize("minor", MINORS)
def test_the_program_runs_from_the_root(roots, minor):
    """It runs on this Python of that minor, with this machine's libraries."""
    root = roots[minor]
    command = (root / "usr/bin/pcipt").read_text()
    assert command.startswith(f"#!/usr/bin/python{minor} -I\n")
    python = next((name for name in (sys.executable, f"/usr/bin/python{minor}") if has(name, minor)), None)
    if python is None:
        pytest.skip(f"no Python {minor} with attrs, cffi, pyroute2 and structlog here")
    program = command.replace('"/usr/lib/pcipt"', repr(str(root / "usr/lib/pcipt")))
    for arguments, said in (
        (["--version"], f"pcipt {__version__}\n"),
        (["list", "--root", "fixtures/sysfs/lab-pv"], "0000:00:06.0"),
        (["replay", "fixtures/sysfs/lab-pvh"], "map-mmio"),
    ):
        done = subprocess.run(
            [python, "-c", program, *arguments], capture_output=True, text=True, check=False
        )
        assert said in done.stdout, done.stderr


def has(python, minor):
    """Tell whether a Python has this minor, and the libraries."""
    code = (
        f"import sys, {', '.join(LIBRARIES).replace('attrs', 'attr')}; print('%d.%d' % sys.version_info[:2])"
    )
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.stdout.strip() == minor


def test_rpmlint_finds_no_error(packages, tool, checkout):
    words = [
        tool("rpmlint"),
        "-c",
        str(checkout / "packaging" / "rpmlint.toml"),
        *map(str, packages.values()),
    ]
    said = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    assert [line for line in said.splitlines() if re.search(r": E: ", line)] == []
    assert re.search(r"\b0 errors", said), said


def test_one_version(checkout):
    spec = (checkout / "packaging" / "pcipt.spec").read_text()
    assert re.search(r"^Version: +(.+)$", spec, re.MULTILINE)[1] == __version__
