"""The types of ports in the PCI Express structure, and conditions on them.

Source: PCI Express Base 6.0 §7.5.3.2 (Device/Port Type).
"""

from pcipt.pci.capabilities.fields import View, on_ports

ENDPOINT, LEGACY_ENDPOINT = 0x0, 0x1
ROOT_PORT, UPSTREAM, DOWNSTREAM = 0x4, 0x5, 0x6
TO_PCI_BRIDGE, FROM_PCI_BRIDGE = 0x7, 0x8
INTEGRATED_ENDPOINT, EVENT_COLLECTOR = 0x9, 0xA

endpoints = on_ports(ENDPOINT, LEGACY_ENDPOINT)
any_endpoint = on_ports(ENDPOINT, LEGACY_ENDPOINT, INTEGRATED_ENDPOINT)
upward = on_ports(ENDPOINT, UPSTREAM, TO_PCI_BRIDGE)
upward_or_legacy = on_ports(ENDPOINT, LEGACY_ENDPOINT, UPSTREAM, TO_PCI_BRIDGE)
forwards_ari = on_ports(ROOT_PORT, DOWNSTREAM)
routes = on_ports(ROOT_PORT, UPSTREAM, DOWNSTREAM)
root = on_ports(ROOT_PORT, EVENT_COLLECTOR)
root_port = on_ports(ROOT_PORT)
to_pci = on_ports(TO_PCI_BRIDGE)
downstream = on_ports(DOWNSTREAM)
requests = on_ports(ROOT_PORT, ENDPOINT, LEGACY_ENDPOINT, INTEGRATED_ENDPOINT)
completes_hints = on_ports(ROOT_PORT, ENDPOINT)
reads_on_boundary = on_ports(ROOT_PORT, ENDPOINT, LEGACY_ENDPOINT, TO_PCI_BRIDGE)
faces_down = on_ports(ROOT_PORT, DOWNSTREAM, FROM_PCI_BRIDGE)
_no_link = on_ports(INTEGRATED_ENDPOINT, EVENT_COLLECTOR)


def second_version(view: View) -> bool:
    """Return True if the PCI Express structure has the registers of version 2: the second half."""
    return view.bits(2, 2, 0, 4) >= 2


def link(view: View) -> bool:
    """Return True if the function has a link: not if it is a part of the root complex."""
    return not _no_link(view)


def second_link(view: View) -> bool:
    return link(view) and second_version(view)


def slot(view: View) -> bool:
    """Return True if a slot is below the port."""
    return faces_down(view) and bool(view.bits(2, 2, 8, 1))
