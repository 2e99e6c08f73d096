"""Whether dom0's first access to a hole maps the page, by release and command line."""

import pytest

from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.pf_fixup import pf_fixup_of
from pcipt.xen.releases import NEWEST
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import SimulatedHardware
from pcipt.xen.simulated.reserved import ReservedRegion

RELEASES = [f"{branch}.{patch}" for branch, newest in NEWEST.items() for patch in range(newest + 1)]
ON, OFF, NOT_SAID = "dom0=pvh,pf-fixup", "dom0=pvh,no-pf-fixup", "dom0=pvh"
NIC = parse_sbdf("01:00.0")
BAR, REGION, RAM = Frames(Gfn(0xFE500), 4), Frames(Gfn(0x7FFF0), 2), Frames(Gfn(0x1000), 16)


def has_option(release):
    major, minor, patch = map(int, release.split("."))
    return (major, minor) >= (4, 21) or (minor, patch) >= (20, 1) or (minor == 19 and patch >= 2)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("dom0", Dom0Kind)
def test_each_release(release, dom0):
    identity = XenIdentity(release, dom0)
    exists = dom0 is Dom0Kind.PVH and has_option(release)
    default = exists and release >= "4.22"
    words = {line: pf_fixup_of(identity, line).word for line in (ON, OFF, NOT_SAID, None)}
    assert words == {
        ON: "on" if exists else "off",
        OFF: "off",
        NOT_SAID: "on" if default else "off",
        None: "unknown" if exists else "off",
    }
    assert pf_fixup_of(identity, ON).reserved is (exists and release >= "4.21")


#  a version whose third number is not known: with the option, without, when nothing is said
BUILDS = {
    "4.18.5-qubes": ("off", "off", "off"),
    "4.19.3-qubes": ("unknown", "off", "off"),
    "4.20-unstable": ("unknown", "off", "off"),
    "4.21.1-vendor": ("on", "off", "off"),
    "4.22.0-rc": ("on", "off", "unknown"),
    "4.23-unstable": ("on", "off", "on"),
}


@pytest.mark.parametrize("build", BUILDS)
def test_a_build_of_a_vendor_has_the_safer_answer(build):
    identity = XenIdentity(build, Dom0Kind.PVH)
    answers = [pf_fixup_of(identity, line) for line in (ON, OFF, NOT_SAID)]
    assert tuple(each.word for each in answers) == BUILDS[build]
    assert all(each.on or each.certain for each in answers)  # in doubt it is on


def simulated(release, line, dom0=Dom0Kind.PVH):
    return SimulatedXen(
        SimulatedHardware([NIC]), XenIdentity(release, dom0), memory=[RAM],
        reserved=[ReservedRegion(REGION, (NIC,))], command_line=line,
    )  # fmt: skip


@pytest.mark.parametrize("release", ["4.17.7", "4.19.1", "4.19.2", "4.20.0", "4.20.4", "4.21.2", "4.22.0"])
@pytest.mark.parametrize("line", [ON, OFF, NOT_SAID])
def test_the_simulated_xen_maps_what_dom0_accesses(release, line):
    xen = simulated(release, line)
    how = pf_fixup_of(xen.identity, line)
    xen.p2m.clear_identity(REGION)
    assert xen.access(BAR) == (4 if how.on else 0)
    assert xen.p2m.mapped(BAR) is how.on
    assert xen.access(BAR) == 0  # there already
    assert xen.access(REGION) == (2 if how.on and release >= "4.21" else 0)
    assert xen.access(RAM) == xen.access(Frames(Gfn(0xFEE00), 1)) == xen.access(Frames(Gfn(0xFEC00), 1)) == 0
    assert xen.access(Frames(Gfn(0x10), 1)) == 0


def test_a_pv_dom0_has_no_map():
    assert simulated("4.22.0", ON, Dom0Kind.PV).access(BAR) == 0
