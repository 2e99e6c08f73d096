"""Resets that vPCI does not see: it takes the BARs for mapped, and drops what is written back to them."""

from __future__ import annotations

import pytest

from .hardware import HOT, HOT_PATH, PART
from .machine import Dom0
from .steps import Steps, findings, undriven, wait_answer, wait_healthy
from .test_leaving import MSIX_BAR, resources
from .test_untrapped import assert_map, setpci
from .witness import PAGE, Witness, decoding

SLOT = PART["rp1"].sbdf
RESET = "reset-behind-vpci"
TOLD = f"{RESET!r} in {{finding['code'] for finding in it['findings']}}"
BAR_WORDS = {0x10: "10.l", 0x14: "14.l", 0x1C: "1c.l"}


def reset_bus(dom0: Dom0) -> None:
    """Reset the secondary bus of the slot, as error recovery does, and restore nothing but the address of the
    I/O BAR, which vPCI does not know.
    """
    ports = dom0.run(f"setpci -s {HOT} 18.l").stdout.strip()
    for word in ("40:40", "0:40"):
        dom0.run(f"setpci -s {SLOT} BRIDGE_CONTROL={word}; sleep 0.5")
    setpci(dom0, HOT, f"18.l={ports}")


def registers(dom0: Dom0) -> list[int]:
    """Give the addresses in the function's memory BARs, without their type bits."""
    words = " ".join(BAR_WORDS.values())
    return [int(line, 16) & ~0xF for line in dom0.run(f"setpci -s {HOT} {words}").lines]


@pytest.fixture
def on_pvh(plugged: Dom0) -> Dom0:
    """Give the machine with the NIC plugged in."""
    if plugged.mode == "pv":
        pytest.skip("Xen keeps nothing of a PV dom0's BARs, and drops no write")
    return plugged


def test_without_a_driver_pcipt_writes_the_addresses_back(on_pvh: Dom0) -> None:
    dom0, bars = on_pvh, resources(on_pvh, HOT)
    starts = [bars[number][0] for number in (0, 1, MSIX_BAR)]
    with undriven(dom0, HOT):
        assert_map(dom0, starts[:2], [])
        steps = Steps(dom0, HOT_PATH)
        reset_bus(dom0)
        steps.wait("rewrite-bar", "done")
        wait_answer(dom0, f"not {TOLD}")
        assert registers(dom0) == starts
        assert RESET not in findings(dom0, HOT)
    dom0.wait_for(f"test -e /sys/bus/pci/devices/{HOT}/driver", timeout=120)
    assert [decoding(dom0, HOT)[bar][0] for bar in (0, 1, MSIX_BAR)] == starts
    assert_map(dom0, [starts[0], starts[1], starts[2] + PAGE], [])
    wait_healthy(dom0)


def test_under_a_driver_it_is_told_with_a_cure_that_works(on_pvh: Dom0) -> None:
    dom0, bars = on_pvh, resources(on_pvh, HOT)
    starts = [bars[number][0] for number in (0, 1, MSIX_BAR)]
    steps, witness = Steps(dom0, HOT_PATH), Witness(dom0)
    reset_bus(dom0)
    setpci(dom0, HOT, f"10.l={starts[0]:x} COMMAND=6:6")  # as Linux would restore it: vPCI drops the address
    wait_answer(dom0, TOLD)
    assert registers(dom0)[0] == 0
    text = findings(dom0, HOT)[RESET]
    assert "unbind e1000e" in text
    assert {step.action for step in steps.told() if step.result == "done"} == set()
    assert [w for w in witness.writes() if w.sbdf == HOT and w.offset in BAR_WORDS and w.value & ~0xF] == []
    with undriven(dom0, HOT):
        steps.wait("rewrite-bar", "done")
        wait_answer(dom0, f"not {TOLD}")
        assert registers(dom0) == starts
    dom0.wait_for(f"test -e /sys/bus/pci/devices/{HOT}/driver", timeout=120)
    assert_map(dom0, [starts[0], starts[1], starts[2] + PAGE], [])
    wait_healthy(dom0)
