"""An HVM guest gets a NIC of a PVH dom0, uses it, and gives it back: Xen 4.20 and Linux 6.12 can do that.

Xen 4.17 cannot (`PVH_DOM0_GIVES_DEVICES`): `test_passthrough` shows that pcipt refuses the release there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from .machine import Dom0
from .steps import PATIENCE, ask, driver_of, wait_answer, wait_healthy
from .test_igb import HERE, ROUTER, answers, interface
from .test_lab_smoke import known_to_xen
from .test_passthrough import IN, NIC, OUT, assert_regions, release

SCRIPT = Path(__file__).with_name("guest_image.sh")
CONSOLE = "/root/hvm/console"
#: The guest boots on a processor that Xen emulates by an emulated SVM.
GUEST_SECONDS = 400.0


def test_a_guest_uses_it_and_gives_it_back(installed: Dom0) -> None:
    dom0 = installed
    if dom0.mode != "pvh":
        pytest.skip("a PV dom0 gives its devices to PV guests: test_passthrough")
    dom0.run("/etc/init.d/xen start || true; modprobe xen-pciback", timeout=180)
    before = driver_of(dom0, NIC)
    (verdict,) = ask(dom0, f"check --guest hvm {NIC}")["functions"]
    assert verdict["verdict"] in ("ok", "warn")
    relaxed = ",rdm_policy=relaxed" if verdict["rdm_policy"] == "relaxed" else ""
    release(dom0, NIC)
    assert_regions(dom0, OUT, IN, IN)
    dom0.put("/root/guest_image.sh", SCRIPT.read_bytes())
    dom0.run(f"sh /root/guest_image.sh {NIC}{relaxed} {HERE} {ROUTER}")
    dom0.run("xl create /root/hvm/guest.cfg", timeout=300)
    try:
        number = dom0.run("xl domid pcipt-guest").stdout.strip()
        wait_answer(dom0, "any(each['owner'].startswith('guest ') for each in it['given_away'])")
        assert known_to_xen(dom0)[NIC] == f"d{number}"
        dom0.wait_for(f"grep -q 'guest: the end' {CONSOLE}", timeout=GUEST_SECONDS)
        told = dom0.run(f"cat {CONSOLE}").stdout
        assert "guest: the router answers" in told, told
        refused = dom0.run(f"pcipt reclaim {NIC}", check=False)
        assert (refused.rc, "belongs to guest" in refused.stderr) == (1, True)
        assert_regions(dom0, OUT, IN, IN)
    finally:
        dom0.run("xl destroy pcipt-guest", timeout=180, check=False)
    wait_answer(dom0, "any(each['owner'] == 'quarantine' for each in it['given_away'])", timeout=PATIENCE)
    dom0.run(f"pcipt reclaim {NIC}")
    assert driver_of(dom0, NIC) == before
    assert known_to_xen(dom0)[NIC] == "d0"
    assert_regions(dom0, IN, IN, IN)
    assert answers(dom0, interface(dom0, NIC))
    wait_healthy(dom0)
