"""Find which functions carry dom0's network interfaces, its default route, and ssh connections to it."""

from collections.abc import Collection, Iterator

from pcipt import values as attrs
from pcipt.host.roles import Kept, RoleReader, functions_in
from pcipt.host.tree import list_names
from pcipt.pci import Sbdf
from pcipt.pci.raw import Use, UseKind

NET, OVS = "sys/class/net", "sys/devices/virtual/net/ovs-system"
ROUTES, ROUTES6 = "proc/net/route", "proc/net/ipv6_route"
SSH_PORT = 22
_TABLES = ("proc/net/tcp", "proc/net/tcp6")
_ESTABLISHED = "01"
_UP, _REJECT = 0x1, 0x200  # flags of a route
_DEPTH = 8
_LIMIT = 4096
_BYTES = 1 << 22
_MAPPED = "0000000000000000FFFF0000"  # ::ffff:a.b.c.d in proc/net/tcp6
Found = list[tuple[Sbdf, Use]]


@attrs.frozen
class Route:
    """One route: the interface, and the addresses that it leads to: those equal to `to` in the bits `mask`.

    Addresses of IPv4 are numbers as in proc/net (its 4 bytes in the processor's order), those of IPv6 numbers
    of 128 bits. `line` is the line of the table.
    """

    interface: str
    to: int
    mask: int
    line: str


def read_network(reader: RoleReader, ports: Collection[int]) -> Found | None:
    """Return the uses of network interfaces, each with its function; None if interfaces cannot be listed.

    A bridge above a card's function has the use too. Of a virtual interface (bridge, bond, VLAN) the cards
    below it count.
    """
    try:
        names = sorted(list_names(reader.tree.enter(NET), _LIMIT))
    except OSError:
        return None
    found: Found = []
    for name in names:
        below = _real(reader, name, _DEPTH)
        found += [
            (sbdf, Use(UseKind.INTERFACE, name)) for each in below if each == name for sbdf in below[each]
        ]
    four, six = list(_routes(reader)), list(_routes6(reader))
    uses = [(UseKind.ROUTE, route.interface) for route in (*four, *six) if not route.mask]
    uses += [(UseKind.SSH, name) for name in _ssh(reader, ports, four, six)]
    for kind, name in dict.fromkeys(uses):
        for card, functions in _real(reader, name, _DEPTH).items():
            use = Use(kind, card, "" if card == name else name)
            found += [(sbdf, use) for sbdf in functions]
    return found


def _real(reader: RoleReader, name: str, depth: int) -> dict[str, list[Sbdf]]:
    """Return the interfaces below functions that an interface consists of, each with its functions.

    Of a card this is the card itself. At most `depth` levels of virtual interfaces are followed.
    """
    try:
        where = reader.follow_link(f"{NET}/{name}")
    except OSError:
        return {}
    functions = functions_in(where)
    if functions or depth == 0:
        return {name: functions} if functions else {}
    found: dict[str, list[Sbdf]] = {}
    home = "/".join(where)
    for lower in _lowers(reader, home) or _switched(reader, home):
        found |= _real(reader, lower, depth - 1)
    return found


def _lowers(reader: RoleReader, home: str) -> list[str]:
    """Return the interfaces that the virtual interface with the directory `home` consists of, sorted.

    Linux has a link lower_NAME for each; a bridge also has a directory with its ports.
    """
    found: set[str] = set()
    try:
        names = list_names(reader.tree.enter(home), _LIMIT)
    except OSError:
        return []
    for name in sorted(names):
        if name.startswith("lower_"):
            found.add(name.removeprefix("lower_"))
            _keep(reader, home, name)
    if "brif" in names:
        ports = list_names(reader.tree.enter(f"{home}/brif"), _LIMIT)
        found.update(ports)
        for name in sorted(ports):
            _keep(reader, f"{home}/brif", name)
    return sorted(found)


def _switched(reader: RoleReader, home: str) -> list[str]:
    """Return the interfaces behind a port of dom0 at Open vSwitch, as XCP-ng's bridges are; none without it.

    Linux ties the cards to `ovs-system` only, for all bridges together. The card of this one has its MAC
    address, as xapi gives it; if none has, each card may carry it. A tunnel has no MAC address, and no card.
    Source: linux net/openvswitch/vport-netdev.c, ovs_netdev_link.
    """
    mine = _mac(reader, home)
    if mine == "" or home == OVS:
        return []
    cards = _lowers(reader, OVS)
    return [card for card in cards if mine and _mac(reader, f"{OVS}/lower_{card}") == mine] or cards


def _mac(reader: RoleReader, home: str) -> str | None:
    """Return the MAC address of the interface with the directory or link `home`, and keep it; None if it
    cannot be read.
    """
    try:
        is_link = home.rpartition("/")[2].startswith("lower_")
        real = "/".join(reader.follow_link(home)) if is_link else home
        data = reader.tree.read(f"{real}/address", 256)
    except OSError:
        return None
    reader.kept_files[f"{real}/address"] = Kept(f"{real}/address", data)
    return data.decode("ascii", "replace").strip()


def _keep(reader: RoleReader, directory: str, name: str) -> None:
    """Keep a link for the recording; nothing is done if it is not a link."""
    try:
        reader.follow_link(f"{directory}/{name}")
    except OSError:
        return


def _lines(reader: RoleReader, path: str) -> list[str]:
    """Return the lines of a table in proc/net; none if it cannot be read."""
    try:
        return reader.tree.read(path, _BYTES).decode("ascii", "replace").splitlines()
    except OSError:
        return []


def _routes(reader: RoleReader) -> Iterator[Route]:
    """Yield the routes of IPv4 that are up. The lines of default routes are kept."""
    head, *lines = _lines(reader, ROUTES) or [""]
    kept = [head]
    for line in lines:
        fields = line.split()
        try:
            to, flags, mask = int(fields[1], 16), int(fields[3], 16), int(fields[7], 16)
        except (IndexError, ValueError):
            continue
        if flags & _UP and not flags & _REJECT:
            yield Route(fields[0], to, mask, line)
            if not mask:
                kept.append(line)
    if head:
        reader.kept_files[ROUTES] = Kept(ROUTES, "".join(f"{line}\n" for line in kept).encode())


def _routes6(reader: RoleReader) -> Iterator[Route]:
    """Yield the routes of IPv6 that are up, without those of lo. The lines of default routes are kept."""
    kept = []
    lines = _lines(reader, ROUTES6)
    for line in lines:
        fields = line.split()
        try:
            to, length, flags = int(fields[0], 16), int(fields[1], 16), int(fields[8], 16)
            interface = fields[9]
        except (IndexError, ValueError):
            continue
        if flags & _UP and not flags & _REJECT and interface != "lo" and length <= 128:
            yield Route(interface, to, ((1 << length) - 1) << (128 - length), line)
            if not length:
                kept.append(line)
    if lines:
        reader.kept_files[ROUTES6] = Kept(ROUTES6, "".join(f"{line}\n" for line in kept).encode())


def _ssh(reader: RoleReader, ports: Collection[int], four: list[Route], six: list[Route]) -> Iterator[str]:
    """Yield the interface by which the answers of each ssh connection to this host leave."""
    for table in _TABLES:
        for line in _lines(reader, table)[1:]:
            fields = line.split()
            try:
                local, (remote, _) = fields[1].rpartition(":")[2], fields[2].split(":")
                wanted = fields[3] == _ESTABLISHED and int(local, 16) in ports
                mapped = remote.startswith(_MAPPED)
                address = _address6(remote) if len(remote) == 32 and not mapped else int(remote[-8:], 16)
            except (IndexError, ValueError):
                continue
            best = _best(address, six if len(remote) == 32 and not mapped else four) if wanted else None
            if best is not None:
                yield best.interface


def _address6(text: str) -> int:
    """Return an address of proc/net/tcp6 as a number. Its words of 4 bytes are in the processor's order."""
    words = (bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, 32, 8))
    return int.from_bytes(b"".join(words), "big")


def _best(address: int, routes: list[Route]) -> Route | None:
    """Return the route with the longest mask that leads to the address, or None."""
    fitting = [route for route in routes if address & route.mask == route.to]
    return max(fitting, key=lambda route: route.mask.bit_count(), default=None)
