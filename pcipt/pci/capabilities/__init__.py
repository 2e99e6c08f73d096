"""The capabilities of a function: where they are (`walk`), and what is in each (one module for each chapter).

The modules of chapters are imported only where details are wanted: the service needs none of them.
"""

from pcipt.pci.capabilities.walk import Capability, find_capability, walk_capabilities

__all__ = ["Capability", "find_capability", "walk_capabilities"]
