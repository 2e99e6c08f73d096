"""For every test without a VM: property tests without a deadline, and nothing may be left behind."""

import contextlib
import gc
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

# A busy machine must not fail a property; how long a run may take is pytest-timeout's business.
settings.register_profile("pcipt", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Mutation testing runs everything many times: few examples, the same ones, and none is made smaller.
settings.register_profile(
    "mutate",
    parent=settings.get_profile("pcipt"),
    max_examples=10,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile(os.environ.get("PCIPT_HYPOTHESIS", "pcipt"))


def pytest_collection_finish():
    """Leave what collecting made out of the garbage collector: each full collection walks all of it."""
    gc.collect()
    gc.freeze()


def children():
    found = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the thread has ended meanwhile
            found += (task / "children").read_text().split()
    return found


def descriptors():
    """List what is open, but for pytest's own files."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue  # it was the listing's own
        if target.startswith(("socket:", "pipe:", "anon_inode:")):
            found.add((number, target))
    return found


@pytest.fixture(autouse=True)
def leaves_nothing(request):
    """Fail a test that leaves a thread, a child process, a socket or a pipe behind."""
    if "lab" in request.node.path.parts:
        yield  # the machines live across tests
        return
    before = set(threading.enumerate()), set(children()), descriptors()
    yield
    after = set(threading.enumerate()), set(children()), descriptors()
    left = [str(item) for was, now in zip(before, after, strict=True) for item in sorted(map(str, now - was))]
    assert not left, f"left behind: {', '.join(left)}"
