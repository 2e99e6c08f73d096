"""Xen's boot looks at each function of the hardware once."""

from collections import Counter

import pytest

from pcipt.pci import Sbdf
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import DOM0, NO_VF_SIZES, Presence, SimulatedHardware

FUNCTIONS = [Sbdf(0, 0, device, 0) for device in range(5)]


class Counted(SimulatedHardware):
    """Hardware that counts how often each function was looked at."""

    def __init__(self, functions: list[Sbdf]) -> None:
        super().__init__(functions)
        self.looked_at: Counter[Sbdf] = Counter()

    def presence(self, function: Sbdf) -> Presence | None:
        self.looked_at[function] += 1
        return super().presence(function)


@pytest.mark.parametrize("dom0", Dom0Kind)
@pytest.mark.parametrize("version", ["4.17.7", "4.20.4", "4.22.0"])
def test_each_function_is_looked_at_once(version: str, dom0: Dom0Kind) -> None:
    hardware = Counted(FUNCTIONS)
    xen = SimulatedXen(hardware, XenIdentity(version, dom0))
    assert hardware.looked_at == dict.fromkeys(FUNCTIONS, 1)
    assert [xen.devices[function].owner for function in FUNCTIONS] == [DOM0] * len(FUNCTIONS)


def test_functions_without_virtual_functions_share_their_empty_sizes() -> None:
    xen = SimulatedXen(SimulatedHardware(FUNCTIONS))
    assert all(xen.devices[function].vf_sizes is NO_VF_SIZES for function in FUNCTIONS)
