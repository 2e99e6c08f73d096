"""Fake Xen libraries for the tests of the real implementation, controlled through ctypes."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "tests" / "csrc"
RING = 131072


class FakeCall(ctypes.Structure):
    """tests/csrc/fakes.h, struct fake_call."""

    _fields_ = (
        ("fail_open", ctypes.c_int32),
        ("fail_alloc", ctypes.c_int32),
        ("fail_call", ctypes.c_int32),
        ("regions", ctypes.c_uint32),
        ("grows", ctypes.c_uint32),
        ("command_line", ctypes.c_char * 1024),
        *((name, ctypes.c_int32) for name in ("opened", "closed", "allocated", "freed", "calls")),
        ("logger_spoke", ctypes.c_int32),
        ("op", ctypes.c_uint32),
        ("command", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("bytes", ctypes.c_ubyte * 24),
    )


class FakeControl(ctypes.Structure):
    """tests/csrc/fakes.h, struct fake_control."""

    _fields_ = (
        ("fail_open", ctypes.c_int32),
        ("fail", ctypes.c_int32),
        ("interrupted", ctypes.c_int32),
        ("first_node", ctypes.c_uint32),
        ("capabilities", ctypes.c_uint32),
        ("oldest", ctypes.c_uint32),
        ("end", ctypes.c_uint32),
        ("ring", ctypes.c_char * RING),
        ("dump", ctypes.c_char * RING),
        ("dump_size", ctypes.c_uint32),
        ("forgets", ctypes.c_uint32),
        *(
            (name, ctypes.c_int32)
            for name in ("opened", "closed", "nodes_calls", "presses", "reads", "clears", "mappings")
        ),
        *((name, ctypes.c_uint32) for name in ("domain", "sbdf", "count")),
        *((name, ctypes.c_uint32) for name in ("mapping_domain", "mapping_add")),
        *((name, ctypes.c_uint64) for name in ("first_gfn", "first_mfn", "frames")),
        ("devices", ctypes.c_ubyte * 64),
        ("key", ctypes.c_char),
    )

    def will_print(self, text: str) -> None:
        data = text.encode("ascii")
        ctypes.memmove(ctypes.addressof(self) + FakeControl.dump.offset, data, len(data))
        self.dump_size = len(data)


class FakeMachine:
    """A directory that looks like a dom0, with both fake libraries and what they saw."""

    def __init__(self, root: Path, compiler: str) -> None:
        self.root = root
        self._compiler = compiler
        self.write("sys/hypervisor/type", "xen")
        self.write("sys/hypervisor/guest_type", "PV")
        self.write("sys/hypervisor/version/major", "4")
        self.write("sys/hypervisor/version/minor", "17")
        self.write("sys/hypervisor/version/extra", ".7")
        self.write("proc/xen/capabilities", "control_d")
        self.write("dev/xen/privcmd", "")
        self.call = self.install("fake_xencall", "libxencall.so.1", FakeCall, "fake_call")
        self.control = self.install("fake_xenctrl", "libxenctrl.so.4.17", FakeControl, "fake_control")

    def write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text + "\n")

    def library(self, name: str) -> Path:
        return self.root / "usr" / "lib" / name

    def install(self, source: str, name: str, layout: type[ctypes.Structure], symbol: str):
        """Compile a fake under its own name, so that each machine has its own state."""
        target = self.library(name)
        target.parent.mkdir(parents=True, exist_ok=True)
        options = ["-shared", "-fPIC", f"-I{REPOSITORY / 'csrc'}"]
        subprocess.run([self._compiler, *options, "-o", target, SOURCES / f"{source}.c"], check=True)
        return layout.in_dll(ctypes.CDLL(str(target)), symbol)


@pytest.fixture
def machine(tmp_path) -> FakeMachine:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler is installed")
    return FakeMachine(tmp_path, compiler)
