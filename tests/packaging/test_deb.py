"""The Debian package: it builds, holds what it should, and lintian has nothing to say.

Installing and purging it on whole systems is done in tests/lab/test_package.py.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from pcipt import __version__
from tests.lab import recipe

REPOSITORY = Path(__file__).resolve().parents[2]
DEBIAN_ONLY = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}

#  pattern of a path, mode
CONTENTS = (
    (r"\./usr/bin/pcipt", "-rwxr-xr-x"),
    (r"\./etc/pcipt/pcipt\.toml", "-rw-r--r--"),
    (r"\./(usr/)?lib/systemd/system/pcipt\.service", "-rw-r--r--"),
    (r"\./(usr/)?lib/systemd/system/pcipt\.socket", "-rw-r--r--"),
    (r"\./(usr/)?lib/systemd/system/pcipt-policy\.service", "-rw-r--r--"),
    (r"\./(usr/)?lib/systemd/system/pcipt-boot\.service", "-rw-r--r--"),
    (r"\./usr/lib/pcipt/keep\.sh", "-rwxr-xr-x"),
    (r"\./usr/lib/pcipt/boot\.sh", "-rwxr-xr-x"),
    (r"\./usr/share/initramfs-tools/hooks/pcipt", "-rwxr-xr-x"),
    (r"\./usr/share/initramfs-tools/scripts/init-top/pcipt", "-rwxr-xr-x"),
    (r"\./usr/share/initramfs-tools/conf-hooks\.d/pcipt", "-rw-r--r--"),
    (r"\./usr/lib/dracut/modules\.d/90pcipt/module-setup\.sh", "-rwxr-xr-x"),
    (r"\./usr/lib/dracut/modules\.d/90pcipt/keep-hook\.sh", "-rwxr-xr-x"),
    (r"\./usr/lib/sysusers\.d/pcipt\.conf", "-rw-r--r--"),
    (r"\./usr/lib/systemd/catalog/pcipt\.catalog", "-rw-r--r--"),
    (r"\./usr/lib/tmpfiles\.d/pcipt\.conf", "-rw-r--r--"),
    # one build for every Python: the stable ABI
    (r"\./usr/lib/python3/dist-packages/pcipt/_decode\.abi3\.so", "-rw-r--r--"),
    (r"\./usr/lib/python3/dist-packages/pcipt/_files\.abi3\.so", "-rw-r--r--"),
    (r"\./usr/lib/python3/dist-packages/pcipt/_hypervisor\.abi3\.so", "-rw-r--r--"),
    (r"\./usr/lib/python3/dist-packages/pcipt/daemon/control/org\.pcipt\.varlink", "-rw-r--r--"),
    (r"\./usr/share/bash-completion/completions/pcipt", "-rw-r--r--"),
    (r"\./usr/share/zsh/vendor-completions/_pcipt", "-rw-r--r--"),
    (r"\./usr/share/fish/vendor_completions\.d/pcipt\.fish", "-rw-r--r--"),
    (r"\./usr/share/doc/pcipt/guide/README\.md", "-rw-r--r--"),
    (r"\./usr/share/doc/pcipt/json\.md", "-rw-r--r--"),
    (r"\./usr/share/man/man1/pcipt\.1\.gz", "-rw-r--r--"),
    (r"\./usr/share/man/man5/pcipt\.toml\.5\.gz", "-rw-r--r--"),
    (r"\./usr/share/man/man8/pcipt-daemon\.8\.gz", "-rw-r--r--"),
)
DEPENDS = ("python3-attr", "python3-cffi-backend", "python3-pyroute2", "python3-structlog", "libc6")


@pytest.fixture(scope="session")
def package(checkout, tmp_path_factory):
    target = tmp_path_factory.mktemp("deb")
    missing = ["dpkg-buildpackage is not installed"]
    if os.path.exists("/usr/bin/dpkg-checkbuilddeps"):
        looked = subprocess.run(
            ["dpkg-checkbuilddeps"],
            cwd=checkout,
            env=DEBIAN_ONLY,
            capture_output=True,
            text=True,
            check=False,
        )
        missing = looked.stderr.splitlines() if looked.returncode else []
    if missing:
        pytest.skip(f"no Debian package can be built here: {missing[-1]}")
    build = ["sh", "scripts/build-deb.sh", str(target)]
    done = subprocess.run(build, cwd=checkout, env=DEBIAN_ONLY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(target.glob("pcipt_*.deb"))


def ask(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_it_holds_what_it_should(package):
    listed = [line.split() for line in ask("dpkg-deb", "--contents", str(package)).splitlines()]
    for pattern, mode in CONTENTS:
        found = [words for words in listed if re.fullmatch(pattern, words[5])]
        assert [words[0] for words in found] == [mode], pattern
    assert {words[1] for words in listed} == {"root/root"}
    assert not [
        words[5] for words in listed if re.search(r"__pycache__|/tests/|/usr/local|\.egg-info", words[5])
    ]


def test_it_needs_debians_own_packages(package):
    needed = ask("dpkg-deb", "--field", str(package), "Depends")
    assert [name for name in DEPENDS if name not in needed] == []
    # Xen's libraries are loaded at run time: a machine without Xen can install it.
    assert "libxen" not in needed
    assert "libxencall1" in ask("dpkg-deb", "--field", str(package), "Recommends")


def test_the_settings_are_a_conffile(package):
    assert ask("dpkg-deb", "--info", str(package), "conffiles").split() == ["/etc/pcipt/pcipt.toml"]


@pytest.mark.parametrize(
    ("called", "stopped"),
    [("remove", ["pcipt.socket", "pcipt-boot.service", "pcipt.service"]), ("upgrade", [])],
)
def test_its_removal_stops_its_units(package, tmp_path, called, stopped):
    """Debhelper stops what it starts; the socket, which an administrator may have enabled, it does not."""
    ask("dpkg-deb", "--control", str(package), str(tmp_path / "control"))
    script = tmp_path / "prerm"
    text = (tmp_path / "control" / "prerm").read_text()
    script.write_text(text.replace("/run/systemd/system", str(tmp_path)))
    for name in ("deb-systemd-invoke", "py3clean"):
        (tmp_path / name).write_text('#!/bin/sh\n[ "$1" != stop ] || echo "$2" >> "$0.log"\n')
        (tmp_path / name).chmod(0o755)
    path = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["sh", str(script), called, "1.0"], env=path, capture_output=True, check=True)
    log = tmp_path / "deb-systemd-invoke.log"
    assert (log.read_text().split() if log.exists() else []) == stopped


def test_lintian_has_nothing_to_say(package, tool):
    changes = next(package.parent.glob("*.changes"))
    command = [tool("lintian"), "--allow-root", "--pedantic", str(changes)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_checkout_stays_as_it_was(checkout, package):
    left = {path.name for path in checkout.iterdir()} & {"build", "dist", ".pybuild", "pcipt.egg-info"}
    assert (left, sorted(path.name for path in (checkout / "debian").glob("described"))) == (set(), [])


def names_in(field):
    """List the packages of a field of debian/control, without versions and debhelper's own."""
    text = (REPOSITORY / "debian" / "control").read_text()
    listed = re.search(rf"^{field}:((?:\n .*)+)", text, re.MULTILINE)[1]
    words = re.findall(r"^ ([a-z0-9.+-]+)", listed, re.MULTILINE)
    return {word for word in words if not word.startswith(("debhelper-compat", "dh-sequence-"))}


def test_the_lab_and_ci_know_what_is_needed():
    wanted = names_in("Build-Depends")
    assert wanted - set(recipe.BUILD_PACKAGES) == set()
    assert wanted - set((REPOSITORY / ".ci" / "run").read_text().replace('"', " ").split()) == set()
    # dom0 has no network: what the package depends on is there before.
    assert {name for name in DEPENDS if name.startswith("python3")} - set(recipe.GUEST_PACKAGES) == set()


def test_one_version_everywhere():
    changelog = (REPOSITORY / "debian" / "changelog").read_text()
    project = (REPOSITORY / "pyproject.toml").read_text()
    assert re.match(r"pcipt \(([^)]+)\)", changelog)[1] == __version__
    assert re.search(r'^version = "(.+)"$', project, re.MULTILINE)[1] == __version__
