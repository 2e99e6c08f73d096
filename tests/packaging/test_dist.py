"""`python -m build`: the source distribution builds from its own content, and the wheel made of it works."""

import subprocess
import sys
import zipfile

import pytest

from tests.packaging.test_deb import CONTENTS

NEEDED = "import build.__main__, cffi, setuptools, wheel"
#: What must be in the source distribution besides the program: all that builds, tests and documents it.
FILES = (
    *(
        ".ci/run",
        "Makefile",
        "README.md",
        "LICENSE",
        "csrc/build.py",
        "csrc/decode.cdef",
        "csrc/decode.h",
        "csrc/hypervisor.c",
    ),
    *(
        "debian/control",
        "debian/rules",
        "docs/man/pcipt.1.in",
        "fixtures/sysfs/lab-pv/xen.json",
        "pcipt/py.typed",
    ),
    *(
        "scripts/demo.py",
        "scripts/describe/__main__.py",
        "systemd/pcipt.service",
        "tests/packaging/test_dist.py",
    ),
)


def clean(words, **kwargs):
    done = subprocess.run(words, capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def python():
    for candidate in (sys.executable, "/usr/bin/python3"):
        if subprocess.run([candidate, "-I", "-c", NEEDED], capture_output=True, check=False).returncode == 0:
            return candidate
    pytest.skip("no Python here has build, cffi, setuptools and wheel (pip install build)")


@pytest.fixture(scope="session")
def unpacked(checkout, python, tmp_path_factory):
    """Make the source distribution and unpack it somewhere else."""
    target = tmp_path_factory.mktemp("sdist")
    clean([python, "-m", "build", "--sdist", "--no-isolation", "--outdir", target, checkout], cwd=target)
    (archive,) = target.glob("*.tar.gz")
    clean(["tar", "-xf", archive], cwd=target)
    return target / archive.name.removesuffix(".tar.gz")


def test_it_holds_all_that_builds_and_tests_it(unpacked):
    assert [name for name in FILES if not (unpacked / name).is_file()] == []
    assert list(unpacked.rglob("*.so")) == []


def test_recorded_machines_are_complete_in_it(checkout, unpacked):
    ours = {path.relative_to(checkout) for path in (checkout / "fixtures").rglob("*")}
    theirs = {path.relative_to(unpacked) for path in (unpacked / "fixtures").rglob("*")}
    assert ours - theirs == set()


def test_its_wheel_works(unpacked, python, tmp_path):
    clean([python, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, unpacked], cwd=tmp_path)
    (wheel,) = tmp_path.glob("*.whl")
    assert "-abi3-" in wheel.name
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    # The wheel's own modules, the interpreter's own libraries, and nothing of this checkout.
    program = "import pcipt._decode, pcipt._hypervisor, pcipt; print(pcipt.__file__)"
    told = clean([sys.executable, "-c", program], cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")})
    assert told.strip() == str(tmp_path / "site" / "pcipt" / "__init__.py")


def test_it_installs_where_there_is_no_debian(unpacked, python, tmp_path):
    """`make install`, into a folder, without a network."""
    clean(["make", "install", f"DESTDIR={tmp_path}", f"PYTHON={python}"], cwd=unpacked)
    command = (tmp_path / "usr/local/bin/pcipt").read_text()
    assert command.startswith(f"#!{python} -I\n")
    program = command.replace('"/usr/local/lib/pcipt"', repr(str(tmp_path / "usr/local/lib/pcipt")))
    told = clean([sys.executable, "-c", program, "list", "--root", unpacked / "fixtures/sysfs/lab-pv"])
    assert "0000:00:06.0" in told
    # what the Debian package has: pattern of its path, where `make install` puts it
    places = {"./(usr/)?lib/systemd/system/": "./etc/systemd/system/", "vendor-completions": "site-functions",
              "./usr/lib/python3/dist-packages/": "./usr/lib/pcipt/"}  # fmt: skip
    files = {
        f"./{path.relative_to(tmp_path)}".replace("/usr/local/", "/usr/") for path in tmp_path.rglob("*")
    }
    for of_debian, _ in CONTENTS:
        pattern = of_debian.replace("\\", "").replace(".gz", "")
        for there, here in places.items():
            pattern = pattern.replace(there, here)
        assert pattern in files
    unit = (tmp_path / "etc/systemd/system/pcipt.service").read_text()
    assert "\nExecStart=/usr/local/bin/pcipt daemon\n" in unit
    clean(["make", "uninstall", f"DESTDIR={tmp_path}"], cwd=unpacked)
    left = [path for path in tmp_path.rglob("*") if not path.is_dir()]
    assert left == [tmp_path / "etc/pcipt/pcipt.toml"]


def test_what_is_missing_to_install_is_named(unpacked, tmp_path):
    (tmp_path / "python3").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python3").chmod(0o755)
    words = ["make", "install", f"PYTHON={tmp_path}/python3", f"DESTDIR={tmp_path}/root"]
    done = subprocess.run(words, cwd=unpacked, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "needs cffi and setuptools" in done.stderr
    assert "apt-get install gcc python3-dev python3-cffi python3-setuptools" in done.stderr
    assert not (tmp_path / "root").exists()
