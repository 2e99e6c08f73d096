"""Find what dom0 uses each function for: disks, mounts, swap, network interfaces, routes, ssh connections.

Only text is read, never a device. All files and links that were read are returned too, so that a recording
has exactly these; connections are not recorded, because they have addresses of other hosts.
Source: linux Documentation/filesystems/proc.rst §3.5; Documentation/ABI/testing/sysfs-class-net;
        net/ipv4/fib_trie.c (fib_route_seq_show), net/ipv6/route.c (rt6_native_seq_show), net/ipv4/tcp_ipv4.c
        (get_tcp4_sock): the columns of the tables in proc/net.
"""

from collections.abc import Collection

from pcipt import values as attrs
from pcipt.errors import InputError
from pcipt.host.roles import Kept, RoleReader
from pcipt.host.tree import Tree
from pcipt.host.uses.disks import read_disks
from pcipt.host.uses.network import SSH_PORT, read_network
from pcipt.pci import Sbdf
from pcipt.pci.raw import Use

DISKS, INTERFACES = "disks and mounts", "network interfaces"


@attrs.frozen
class Uses:
    """What dom0 uses functions for, by function, and the files and links that were read.

    `unknown` are the kinds of uses that could not be looked for, of DISKS and INTERFACES.
    """

    found: dict[Sbdf, tuple[Use, ...]]
    unknown: tuple[str, ...] = (DISKS, INTERFACES)
    kept: tuple[Kept, ...] = ()


def read_uses(root: str = "/", ports: Collection[int] = (SSH_PORT,)) -> Uses:
    """Find what dom0 below `root` uses its functions for. Raises nothing; what cannot be read is left out.

    `ports` are the TCP ports at which this host takes ssh connections.
    """
    try:
        with Tree(root) as tree:
            reader = RoleReader(tree)
            parts = {DISKS: read_disks(reader), INTERFACES: read_network(reader, ports)}
            kept = tuple(reader.kept_files.values())
    except InputError:
        return Uses({})
    found: dict[Sbdf, dict[Use, None]] = {}
    for sbdf, use in (each for part in parts.values() for each in part or ()):
        found.setdefault(sbdf, {})[use] = None
    unknown = tuple(what for what, part in parts.items() if part is None)
    return Uses({sbdf: tuple(uses) for sbdf, uses in found.items()}, unknown, kept)


__all__ = ["SSH_PORT", "Uses", "read_uses"]
