import inspect

import pytest

from pcipt.daemon.counted_xen import CountedXen
from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.pci import parse_sbdf
from pcipt.xen.interface import DeviceFlags, Hypervisor

NIC = parse_sbdf("01:00.0")

#  method, its arguments; every one of the interface's is here
CALLS = {
    "known": ([NIC],),
    "custody": (NIC,),
    "owners": (),
    "add_device": (NIC, DeviceFlags()),
    "remove_device": (NIC,),
    "map_mmio": (None,),
    "unmap_mmio": (None,),
    "reserved_regions": (NIC,),
    "permissions": (),
    "console": (),
    "command_line": (),
    "abilities": (),
}


class Failing:
    identity = "who"

    def __init__(self, error):
        self.error, self.heard = error, []

    def __getattr__(self, name):
        def call(*arguments):
            self.heard.append((name, arguments))
            if self.error is not None:
                raise self.error
            return name

        return call


def test_every_call_of_the_interface_is_passed_on():
    declared = {name for name, _ in inspect.getmembers(Hypervisor, inspect.isfunction) if name[0] != "_"}
    assert declared == {*CALLS, "close"}
    xen = Failing(None)
    counted = CountedXen(xen, pytest.fail)
    for name, arguments in CALLS.items():
        getattr(counted, name)(*arguments)
    counted.close()
    assert xen.heard == [*CALLS.items(), ("close", ())]
    assert counted.identity == "who"


@pytest.mark.parametrize("name", CALLS)
def test_an_error_of_xen_is_told_and_raised_on(name):
    told = []
    error = HypervisorError(name, 16)
    with pytest.raises(HypervisorError) as caught:
        getattr(CountedXen(Failing(error), told.append), name)(*CALLS[name])
    assert told == [error]
    assert caught.value is error


def test_what_is_missing_here_is_no_error_of_xen():
    with pytest.raises(UnsupportedError):
        CountedXen(Failing(UnsupportedError("libxenctrl", "not here")), pytest.fail).owners()
