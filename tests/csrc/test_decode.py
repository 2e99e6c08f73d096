"""The decoders in plain C under the sanitizers, on bytes that nobody meant to send."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[1] / "csrc"
STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{CSRC}")
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DFILE_DRIVER")
CC = shutil.which("cc") or shutil.which("gcc")

pytestmark = pytest.mark.skipif(CC is None, reason="no C compiler is installed")


def run(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    made = tmp_path_factory.mktemp("fuzz") / "fuzz_decode"
    built = run(CC, *STRICT, *SANITIZED, "-o", made, HERE / "fuzz_decode.c", CSRC / "decode.c")
    assert built.returncode == 0, built.stderr
    return made


def test_records_that_are_nearly_right(driver):
    for seed in (1, 2):
        done = run(driver, "-r", seed, 4000)
        assert done.returncode == 0, done.stderr


def test_bytes_of_no_kind(driver, tmp_path):
    source = random.Random(7)  # the same bytes each time
    paths = []
    for number, size in enumerate([0, 3, 4, 5, 7, 8, 27, 28, 29, 43, 44, 4096, 65536]):
        for kind in range(2):
            paths.append(tmp_path / f"{number}-{kind}")
            paths[-1].write_bytes((bytes([kind]) + source.randbytes(size))[:size])
    done = run(driver, *paths)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("level", ["-O0", "-O2", "-O3"])
def test_no_warning_at_any_level(level, tmp_path):
    built = run(CC, *STRICT, level, "-Wconversion", "-c", "-o", tmp_path / "decode.o", CSRC / "decode.c")
    assert built.returncode == 0, built.stderr
