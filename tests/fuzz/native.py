"""The C decoders under ASan and UBSan: by libFuzzer where there is clang, else by the driver's own inputs."""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.fuzz import corpus

NAME = "c-decoders"
ROOT = Path(__file__).resolve().parents[2]
SOURCES = [ROOT / "tests" / "csrc" / "fuzz_decode.c", ROOT / "csrc" / "decode.c"]
SANITIZED = ["-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
BATCH = 20_000  # inputs of one run of the driver


def build(directory):
    """Compile the fuzzer. Return its path, and whether libFuzzer leads it."""
    made = Path(directory) / "fuzz_decode"
    clang = shutil.which("clang")
    compiler = clang or shutil.which("cc")
    if compiler is None:
        raise RuntimeError("no C compiler is installed")
    way = ["-fsanitize=fuzzer"] if clang else ["-DFILE_DRIVER"]
    subprocess.run([compiler, *SANITIZED, *way, f"-I{ROOT / 'csrc'}", "-o", made, *SOURCES], check=True)
    return made, clang is not None


def run(seconds, seed, found):
    """Fuzz for some seconds; return what was done. Raises: RuntimeError if something broke."""
    with tempfile.TemporaryDirectory() as directory:
        made, covers = build(directory)
        begin = Path(directory) / "corpus"
        begin.mkdir()
        for number, data in enumerate(corpus.recorded_frames()):
            (begin / str(number)).write_bytes(data)
        if covers:
            os.makedirs(found, exist_ok=True)
            check([made, f"-max_total_time={int(seconds)}", f"-artifact_prefix={found}/{NAME}-", begin])
            return "led by libFuzzer, ASan and UBSan"
        check([made, *begin.iterdir()])
        end, batches = time.monotonic() + seconds, 0
        while time.monotonic() < end:
            check([made, "-r", str(seed + batches), str(BATCH)])
            batches += 1
        return f"{batches * BATCH} inputs of the driver, ASan and UBSan"


def check(command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr[-4000:]}")
