"""Machines for tests of the policy: identities made of a few words."""

from pcipt.pci import Ids, PciPath, Sbdf
from pcipt.pci.identity import Identity

IDS = Ids(0x8086, 0x1533, 0x020000, 0x03, 0x15D9, 0x1533)
PATH = PciPath(0, ((0, 0x1C, 0), (0, 0, 0)))
SERIAL = 0x001B21FFFF304CD8
ROOT = "\\_SB_.PCI0"
NIC = Sbdf(0, 3, 0, 0)


def identity(path=PATH, root=ROOT, ids=IDS, serial=SERIAL, slot=None):
    return Identity(path, root, ids, serial, slot)
