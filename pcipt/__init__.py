"""Keep the PCI views of a Xen hardware domain (the hardware's, Linux's and Xen's) in agreement.

The names in `__all__` are for other programs: `Client` asks the service, `read_machine` reads and decodes a
machine, the other classes are values of it and errors. They follow semantic versioning (docs/python.md). Each
is loaded when it is first used. Everything else in this package may change at any time.
"""

TYPE_CHECKING = False  # type checkers take it for True; `import typing` would take longer than this module

if TYPE_CHECKING:
    from pcipt.api.client import Client
    from pcipt.api.machine import read_machine
    from pcipt.errors import (
        AddressError,
        InputError,
        NoSuchDeviceError,
        NotPermittedError,
        NotRunningError,
        PciptError,
    )
    from pcipt.pci.address import PciPath, Sbdf, parse_sbdf
    from pcipt.pci.bars import Bar, BarKind
    from pcipt.pci.bridge import Bridge, Window, WindowKind
    from pcipt.pci.capabilities.walk import Capability
    from pcipt.pci.finding import Finding
    from pcipt.pci.function import Function
    from pcipt.pci.ids import Ids
    from pcipt.pci.machine import Machine
    from pcipt.pci.units import Range

__version__ = "0.1.0"

__all__ = [
    "AddressError",
    "Bar",
    "BarKind",
    "Bridge",
    "Capability",
    "Client",
    "Finding",
    "Function",
    "Ids",
    "InputError",
    "Machine",
    "NoSuchDeviceError",
    "NotPermittedError",
    "NotRunningError",
    "PciPath",
    "PciptError",
    "Range",
    "Sbdf",
    "Window",
    "WindowKind",
    "__version__",
    "parse_sbdf",
    "read_machine",
]

_MODULES = {
    "api.client": ("Client",),
    "api.machine": ("read_machine",),
    "errors": (
        "AddressError",
        "InputError",
        "NoSuchDeviceError",
        "NotPermittedError",
        "NotRunningError",
        "PciptError",
    ),
    "pci.address": ("PciPath", "Sbdf", "parse_sbdf"),
    "pci.bars": ("Bar", "BarKind"),
    "pci.bridge": ("Bridge", "Window", "WindowKind"),
    "pci.capabilities.walk": ("Capability",),
    "pci.finding": ("Finding",),
    "pci.function": ("Function",),
    "pci.ids": ("Ids",),
    "pci.machine": ("Machine",),
    "pci.units": ("Range",),
}

if not TYPE_CHECKING:  # a type checker would take it that every name exists

    def __getattr__(name: str) -> object:
        """Load a name of the table above when it is first asked for (PEP 562).

        Raises: AttributeError for every other name, before anything is loaded.
        """
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from pcipt.lazy import loader

        return loader(__name__, _MODULES)(name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
