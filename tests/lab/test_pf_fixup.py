"""Xen's option dom0=pf-fixup: what pcipt unmapped comes back at dom0's next access, and that is told.

The machine must be booted with the option (`--xen dom0=pf-fixup`; Xen 4.19 and later, PVH).
"""

from __future__ import annotations

import pytest

from .machine import Dom0
from .steps import RESULT, Steps, answer, resync, settings, wait_answer, wait_healthy
from .test_untrapped import SWITCHED_OFF, TESTDEV, forget, place_of, setpci
from .witness import mapped

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
    dom0, sbdf = fixing, TESTDEV.sbdf
    with settings(dom0, SWITCHED_OFF):
        forget(dom0, TESTDEV)
        resync(dom0)
        here, steps = place_of(dom0, TESTDEV), Steps(dom0, TESTDEV.path)
        setpci(dom0, sbdf, "COMMAND=2:2")
        steps.wait("map-mmio", RESULT[dom0.mode], here)
        setpci(dom0, sbdf, "COMMAND=0:2")
        steps.wait("unmap-mmio", RESULT[dom0.mode], here)
        mapped(dom0, here)  # this access brings the page back
        assert mapped(dom0, here) == [True]
        told = f"'unmap-undone' in {{f['code'] for f in it['findings'] if f['sbdf'] == {sbdf!r}}}"
        wait_answer(dom0, told, timeout=FIRST_CHECK_SECONDS)
        text = next(f["text"] for f in answer(dom0, "Status")["findings"] if f["sbdf"] == sbdf)
        assert "dom0=no-pf-fixup" in text
    wait_healthy(dom0)
