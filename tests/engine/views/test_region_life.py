"""A device with reserved regions, hidden, quarantined, given to guests and given back, with few messages.

Tried with VT-d and AMD-Vi, with and without Xen's map-reserved, on each release and vendors' builds.
"""

import attrs
import pytest

from pcipt.pci.requester import Vendor
from pcipt.xen.simulated.coverage import EVERYTHING
from tests.engine.stage import S, codes, compare
from tests.engine.views.test_reserved import DOM0, IN, NIC, OTHER, OUT, QUARANTINE, Scene, guest
from tests.engine.views.test_returning import message, rest
from tests.engine.views.test_silent import PAUSE, drain, tick
from tests.xen.versions import BUILDS, EACH_RELEASE

XENS = [(version, vendor) for version in [*EACH_RELEASE, *BUILDS] for vendor in Vendor]


@pytest.mark.parametrize("map_reserved", [False, True])
@pytest.mark.parametrize(("version", "vendor"), XENS)
def test_the_regions_are_where_the_device_is(version, vendor, map_reserved):
    coverage = attrs.evolve(EVERYTHING, vendor=vendor)
    scene = Scene(version=version, coverage=coverage, map_reserved=map_reserved)

    def restart():
        scene.hotplug.read()
        scene.engine = scene.start()
        compare(scene.engine)
        drain(scene)

    def silently(owner):
        scene.xen.give(S(NIC), owner)
        tick(scene, PAUSE)
        return scene.mapped()[:2]

    scene.bind(NIC, "pciback")  # xen-pciback.hide=
    restart()
    assert scene.mapped()[:2] == (IN, IN)
    for owner in (QUARANTINE, guest(5), QUARANTINE):
        assert silently(owner) == (OUT, IN)
    restart()
    assert scene.mapped()[:2] == (OUT, IN)
    scene.give_away(OTHER)
    scene.told(OTHER)
    drain(scene)
    assert scene.mapped()[:2] == (OUT, OUT)
    scene.xen.give(S(NIC), DOM0)  # xl pci-assignable-remove -r
    message(scene, "unbind")
    assert scene.mapped()[:2] == (IN, IN)  # no time has passed
    message(scene, "bind", driver="e1000e")
    rest(scene)
    tick(scene, 3600)
    assert scene.mapped()[:2] == (IN, IN)
    scene.give_away(NIC, guest(7))  # while the service is dead
    restart()
    assert scene.mapped()[:2] == (OUT, OUT)
    assert silently(DOM0) == (IN, IN)  # the guest has ended
    assert codes(scene.engine) == set()
