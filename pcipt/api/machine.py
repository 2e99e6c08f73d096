"""Read and decode a machine, as `pcipt list --json` does."""

import os
import tempfile

from pcipt.host.report.archive import unpack
from pcipt.host.sysfs import read_machine as read_functions
from pcipt.pci import Machine, decode_machine


def read_machine(root: str | os.PathLike[str] = "/") -> Machine:
    """Read the PCI functions of a machine and return them decoded, in address order.

    `root` is "/" for this machine, a directory that `pcipt record` made, or the archive of a report. Nothing
    is changed. Users other than root see 64 bytes of the configuration space of each function: capabilities
    are missing then. A function that cannot be read is there with a finding.

    >>> machine = read_machine("fixtures/sysfs/lab-pv")
    >>> len(machine.functions)
    10
    >>> for function in machine.functions.values():
    ...     if function.driver == "e1000e":
    ...         print(function.sbdf, function.ids.vendor, function.bars[0].address)
    0000:02:00.0 32902 4261675008

    Raises: InputError if there is no machine below `root`, or if the archive is damaged.
    """
    path = os.fspath(root)
    if not os.path.isfile(path):
        return decode_machine(read_functions(path))
    with tempfile.TemporaryDirectory(prefix="pcipt-root.") as directory:
        return decode_machine(read_functions(unpack(path, os.path.realpath(directory))))
