"""A BAR write while decoding: a PVH dom0's vPCI drops it, on a PV dom0 it moves the BAR at once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .hardware import PART
from .machine import Dom0
from .steps import Steps, findings, settings, wait_answer, wait_healthy
from .test_untrapped import FREE, OBSERVING, TESTDEV, WIDE, Function, assert_map, pages, place_of, setpci
from .witness import Seen, Witness, decoding, map_calls

NIC = PART["nic"].sbdf
IGNORED = "bar-write-ignored"
TOLD = f"{IGNORED!r} in {{finding['code'] for finding in it['findings']}}"
COMMAND = 0x04


@pytest.fixture(params=[TESTDEV, WIDE], ids=["32 bits", "64 bits"])
def decoder(request: pytest.FixtureRequest, installed: Dom0) -> Iterator[tuple[Dom0, Function, int]]:
    """Give a function that Xen knows, without a driver, decoding; afterwards it is as it was."""
    function: Function = request.param
    setpci(installed, function.sbdf, "COMMAND=2:2")
    here = place_of(installed, function)
    yield installed, function, here
    setpci(installed, function.sbdf, f"COMMAND=0:2 {function.words(here)}")
    wait_healthy(installed)


def test_without_a_driver_it_is_repeated_with_decoding_off(decoder: tuple[Dom0, Function, int]) -> None:
    dom0, function, here = decoder
    steps, witness, mark = Steps(dom0, function.path), Witness(dom0), dom0.mark()
    setpci(dom0, function.sbdf, function.words(function.there))
    if dom0.mode == "pvh":
        steps.wait("rewrite-bar", "done")
        assert any("ignored BAR" in line for line in dom0.xen_lines(mark))
        writes = [w for w in witness.writes() if w.sbdf == function.sbdf and w.offset < 0x30]
        assert [w.offset for w in writes if w.offset == COMMAND] == [COMMAND] * 2
        assert writes[0].offset == writes[-1].offset == COMMAND
        assert (writes[0].value & 2, writes[-1].value & 2) == (0, 2)
        low = Seen(function.sbdf, 0x10 + 4 * function.bar, function.there & 0xFFFF_FFFF)
        assert low in [Seen(w.sbdf, w.offset, w.value & ~0xF) for w in writes[1:-1]]
    else:
        steps.wait("map-mmio", "not-applicable", function.there)
        assert "rewrite-bar" not in {d.action for d in steps.told()}
    assert decoding(dom0, function.sbdf)[function.bar] == (function.there, function.size)
    assert_map(dom0, pages(function.there, function.size), pages(here, function.size))
    assert map_calls(dom0, mark) == []  # vPCI does it itself
    assert IGNORED not in findings(dom0, function.sbdf)


def test_under_a_driver_it_is_told_with_both_addresses(installed: Dom0) -> None:
    dom0 = installed
    if dom0.mode == "pv":
        pytest.skip("a PV dom0 drops no write: this one would take the device from its driver")
    here = int(dom0.run(f"setpci -s {NIC} BASE_ADDRESS_0").stdout, 16) & ~0xF
    there, witness = here + 0x10_0000, Witness(dom0)
    setpci(dom0, NIC, f"BASE_ADDRESS_0={there:x}")
    wait_answer(dom0, TOLD)
    text = findings(dom0, NIC)[IGNORED]
    assert f"{here:#x}" in text
    assert f"{there:#x}" in text
    setpci(dom0, NIC, f"BASE_ADDRESS_0={here:x}")
    wait_healthy(dom0)
    assert [w for w in witness.writes() if w.sbdf == NIC and w.offset in (COMMAND, 0x10)] == []
    assert decoding(dom0, NIC)[0][0] == here


def test_a_place_that_is_taken_is_not_written(installed: Dom0) -> None:
    dom0, function = installed, TESTDEV
    if dom0.mode == "pv":
        pytest.skip("a PV dom0 drops no write")
    for each in (function, WIDE):
        setpci(dom0, each.sbdf, "COMMAND=2:2")
    here, taken, witness = place_of(dom0, function), place_of(dom0, WIDE), Witness(dom0)
    setpci(dom0, function.sbdf, function.words(taken))
    wait_answer(dom0, TOLD)
    assert f"{taken:#x}" in findings(dom0, function.sbdf)[IGNORED]
    setpci(dom0, function.sbdf, function.words(here))
    wait_healthy(dom0)
    assert [w for w in witness.writes() if w.sbdf == function.sbdf] == []
    for each in (function, WIDE):
        setpci(dom0, each.sbdf, "COMMAND=0:2")


def test_in_observe_mode_it_is_only_told(installed: Dom0) -> None:
    dom0, function = installed, TESTDEV
    if dom0.mode == "pv":
        pytest.skip("a PV dom0 drops no write")
    with settings(dom0, OBSERVING):
        setpci(dom0, function.sbdf, "COMMAND=2:2")
        here, steps, witness = place_of(dom0, function), Steps(dom0, function.path), Witness(dom0)
        setpci(dom0, function.sbdf, function.words(FREE))
        steps.wait("rewrite-bar", "planned")
        assert [w for w in witness.writes() if w.sbdf == function.sbdf] == []
        setpci(dom0, function.sbdf, f"{function.words(here)} COMMAND=0:2")
