"""Resets of a physical function whose virtual functions are on: Linux writes its SR-IOV registers back."""

import attrs
import pytest

from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from tests.engine.stage import BusStage, S, codes, compare, right
from tests.engine.test_vfs_on import BUSES, MSE, PF, VF, VFE, physical, virtual
from tests.xen.devices import SRIOV_AT, device, port
from tests.xen.truth import mapped_pages
from tests.xen.versions import EACH_RELEASE

BRIDGE, COMMAND, NO_INTERRUPT = "00:1c.0", 0x04, 0x400
AT, VF_AT, VF_AT_2 = 0xC010_0000, 0xC020_0000, 0xC030_0000
PAGES = {
    page
    for start, size in ((AT, 4), (VF_AT, 4), (VF_AT_2, 2))
    for page in range(start >> 12, (start >> 12) + size)
}


class Scene:
    """A physical function with a driver or without, and its virtual function in dom0 or in a guest."""

    def __init__(self, version, dom0, *, driver="igb", guest=False):
        window = port(BRIDGE, 2, 9, window=(0xC010, 0xC030), command=2)
        vf = attrs.evolve(virtual(), driver="pciback" if guest else None)
        raws = [device("00:00.0"), window, physical(driver=driver, command=2), vf]
        self.stage = BusStage(raws, version=version, dom0=dom0, coverage=BUSES)
        self.engine = self.stage.engine = self.stage.start()
        compare(self.engine)
        if guest:
            self.stage.xen.give(S(VF), Owner(OwnerKind.DOMAIN, 3))
            compare(self.engine)
        self.calls = len(self.stage.xen.changes)
        self.before = bytes(self.stage.hardware.config(S(PF)))

    def polite(self):
        """As pci_reset_function does: Command first, then the reset."""
        self.stage.write(PF, COMMAND, 2, NO_INTERRUPT)
        self.stage.hardware.reset(S(PF))

    def unseen(self):
        """Power off and on (D3cold)."""
        self.stage.hardware.reset(S(PF))

    def bus(self):
        """By the bridge's control register."""
        for value in (0x40, 0):
            self.stage.write(BRIDGE, 0x3E, 2, value)

    def restore(self):
        """Write back as pci_restore_config_space and sriov_restore_state do."""
        for offset in (0x14, 0x10):
            self.stage.write(PF, offset, 4, int.from_bytes(self.before[offset : offset + 4], "little"))
        self.stage.write(PF, COMMAND, 2, 2)
        for offset in range(SRIOV_AT + 0x24, SRIOV_AT + 0x3C, 4):
            self.stage.write(PF, offset, 4, int.from_bytes(self.before[offset : offset + 4], "little"))
        self.stage.write(PF, SRIOV_AT + 0x20, 4, 1)
        self.stage.write(PF, SRIOV_AT + 0x10, 2, 1)
        self.stage.write(PF, SRIOV_AT + 8, 2, VFE | MSE)

    def wait(self):
        """Let all work be done; give the calls that changed Xen since the beginning."""
        for _ in range(3):
            self.stage.settle(self.engine)
            self.stage.time += 60
        compare(self.engine)
        assert self.stage.xen.catastrophe is None
        return [call.op for call in self.stage.xen.changes[self.calls :]]


both = pytest.mark.parametrize("seen_between", [False, True])
ways = pytest.mark.parametrize("reset", [Scene.polite, Scene.unseen, Scene.bus])
each_release = pytest.mark.parametrize("version", EACH_RELEASE)


@both
@ways
@each_release
def test_a_pv_dom0_has_nothing_to_do(version, reset, seen_between):
    scene = Scene(version, "pv")
    reset(scene)
    if seen_between:
        scene.stage.settle(scene.engine)
    scene.restore()
    assert scene.wait() == []
    assert codes(scene.engine) == set()


@both
@each_release
def test_a_reset_that_vpci_saw_coming_leaves_everything_as_it_was(version, seen_between):
    scene = Scene(version, "pvh")
    scene.polite()
    if seen_between:
        scene.stage.settle(scene.engine)
    scene.restore()
    assert set(scene.wait()) <= {Op.MAP, Op.UNMAP}
    right(scene.stage)
    assert codes(scene.engine) == set()


@both
@each_release
@pytest.mark.parametrize("driver", [None, "igb"])
@pytest.mark.parametrize("reset", [Scene.unseen, Scene.bus])
def test_after_one_that_it_did_not_see_the_virtual_function_has_its_pages(
    version, reset, driver, seen_between
):
    """The physical function is told; it is not switched off while it has virtual functions."""
    scene = Scene(version, "pvh", driver=driver)
    reset(scene)
    if seen_between:
        scene.stage.settle(scene.engine)
    scene.restore()
    assert set(scene.wait()) <= {Op.MAP, Op.UNMAP}
    assert mapped_pages(scene.stage.xen) == PAGES
    ((sbdf, finding),) = scene.engine.findings
    assert (sbdf, finding.code) == (S(PF), "reset-behind-vpci")
    assert ("unbind igb" if driver else "write 0 to its sriov_numvfs first") in finding.text
    scene.stage.write(PF, SRIOV_AT + 8, 2, 0)  # what the driver does when it is unbound
    del scene.stage.files.raws[S(VF)]
    scene.stage.xen.kernel_remove(S(VF))
    scene.stage.hotplug.push("remove", S(VF))
    scene.stage.files.raws[S(PF)] = attrs.evolve(scene.stage.files.raws[S(PF)], driver=None)
    scene.stage.hotplug.push("unbind", S(PF))
    scene.wait()
    right(scene.stage)
    assert codes(scene.engine) == set()


@both
@ways
@each_release
def test_nothing_is_done_for_a_virtual_function_that_a_guest_has(version, reset, seen_between):
    scene = Scene(version, "pvh", guest=True)
    before = mapped_pages(scene.stage.xen)
    reset(scene)
    if seen_between:
        scene.stage.settle(scene.engine)
    scene.restore()
    assert scene.wait() == []
    assert mapped_pages(scene.stage.xen) == before
