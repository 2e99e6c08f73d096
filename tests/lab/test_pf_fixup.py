"""Xen's option dom0=pf-fixup: what pcipt unmapped comes back at dom0's next access, and that is told.

The machine must be booted with the option (`--xen dom0=pf-fixup`; Xen 4.19 and later, PVH).
"""

from __future__ import annotations

import pytest

from .hardware import HOT, HOT_PATH
from .machine import Dom0
from .steps import LEAVER, Steps, answer, plug, unplug, wait_answer
from .test_leaving import resources
from .witness import map_calls, mapped

#: The first check comes a minute after the unmap (DELAYS of engine/queue.py).
FIRST_CHECK_SECONDS = 240.0


@pytest.fixture
def fixing(installed: Dom0) -> Dom0:
    """Give a machine that was booted with the option."""
    if "pf-fixup" not in installed.extra.xen:
        pytest.skip("this Xen was not booted with dom0=pf-fixup")
    return installed


def test_status_says_that_the_option_is_on(fixing: Dom0) -> None:
    assert answer(fixing, "Status")["pf_fixup"] == "on"


def test_a_page_that_comes_back_is_unmapped_again_and_told(fixing: Dom0) -> None:
    dom0 = fixing
    plug(dom0, "e1000e", LEAVER)
    dom0.wait_for(f"test -e /sys/bus/pci/devices/{HOT}/driver", timeout=120)
    here, _ = resources(dom0, HOT)[0]
    steps = Steps(dom0, HOT_PATH)
    unplug(dom0, LEAVER)
    steps.wait("unmap-mmio", "done", here)
    since = dom0.mark()
    mapped(dom0, here)  # this access brings the page back
    assert mapped(dom0, here) == [True]
    told = f"'unmap-undone' in {{f['code'] for f in it['findings'] if f['sbdf'] == {HOT!r}}}"
    answer_now = wait_answer(dom0, told, timeout=FIRST_CHECK_SECONDS)
    text = next(f["text"] for f in answer_now["findings"] if f["sbdf"] == HOT)
    assert "dom0=no-pf-fixup" in text
    assert (here >> 12) in {call.gfn for call in map_calls(dom0, since) if call.verb == "remove"}
