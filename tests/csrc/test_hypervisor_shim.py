"""The shim alone, in C, against fake libraries: arguments arrive right, every errno comes back right."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}")
CC = shutil.which("cc") or shutil.which("gcc")

pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler is installed")

# name, flags of the harness's and the shim's build
BUILDS = {
    "plain": ("-O2",),  # as it is shipped
    "sanitized": ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
}


def cc(*arguments: str | Path) -> None:
    assert CC is not None
    done = subprocess.run([CC, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def libraries(tmp_path_factory) -> list[Path]:
    """The two fakes, and a library that has none of the functions."""
    place = tmp_path_factory.mktemp("fakes")
    empty = place / "empty.c"
    empty.write_text("int pcipt_empty;\n")
    made = []
    for source in (HERE / "fake_xencall.c", HERE / "fake_xenctrl.c", empty):
        target = place / f"{source.stem}.so"
        cc(*STRICT, "-shared", "-fPIC", "-o", target, source)
        made.append(target)
    return made


@pytest.mark.parametrize("build", BUILDS)
def test_arguments_arrive_and_errors_come_back(build, libraries, tmp_path):
    harness = tmp_path / "harness"
    cc(*STRICT, *BUILDS[build], "-o", harness, HERE / "harness_hypervisor.c", CSRC / "hypervisor.c", "-ldl")
    done = subprocess.run([harness, *libraries], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    total = re.fullmatch(r"(\d+) checks, 0 failures\n", done.stdout)
    assert total is not None, done.stdout
    assert int(total[1]) > 500


def test_the_shim_needs_no_header_of_xen():
    named = re.findall(
        r'#include\s+[<"]([^>"]+)[>"]', "".join(p.read_text() for p in CSRC.glob("hypervisor.[ch]"))
    )
    assert named
    assert not [name for name in named if "xen" in name]
