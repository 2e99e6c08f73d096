"""Keeps the ledger and the boot snapshot in the state directory, each for the boot it was made in."""

import os

from pcipt.errors import AddressError, MalformedError
from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import Finding, parse_sbdf
from pcipt.remap.ledger import Ledger, ledger_from_json, ledger_to_json
from pcipt.service.documents import Document

STATE_DIRECTORY = "/var/lib/pcipt"


class Keeper:
    """The files `ledger` and `boot` below one directory."""

    def __init__(self, directory: str) -> None:
        self._ledger = Document(os.path.join(directory, "ledger"), "ledger")
        self._boot = Document(os.path.join(directory, "boot"), "boot-snapshot")

    def load(self, boot_id: str) -> tuple[Ledger, BootSnapshot | None, list[Finding]]:
        """Read both; what belongs to another boot is over, what is damaged is kept aside and said."""
        content, damage = self._ledger.load()
        findings = [damage] if damage is not None else []
        ledger = Ledger(boot_id)
        if content is not None:
            try:
                read = ledger_from_json(content)
            except MalformedError as error:
                findings.append(Finding("ledger-damaged", f"{self._ledger.path}: {error.why}; it is rebuilt"))
            else:
                ledger = read if read.boot_id == boot_id else ledger
        content, damage = self._boot.load()
        findings += [damage] if damage is not None else []
        snapshot = _snapshot_from_json(content)
        return ledger, snapshot if snapshot is not None and snapshot.boot_id == boot_id else None, findings

    def save(self, ledger: Ledger) -> None:
        self._ledger.save(ledger_to_json(ledger))

    def save_snapshot(self, snapshot: BootSnapshot) -> None:
        self._boot.save(
            {
                "boot_id": snapshot.boot_id,
                "functions": [str(sbdf) for sbdf in sorted(snapshot.functions)],
                "bridges": {str(sbdf): list(numbers) for sbdf, numbers in sorted(snapshot.bridges.items())},
            }
        )


def _snapshot_from_json(content: object) -> BootSnapshot | None:
    """Read a snapshot back; one that cannot be read counts as none and is made anew."""
    if not isinstance(content, dict):
        return None
    try:
        bridges = {
            parse_sbdf(key): (int(secondary), int(subordinate))
            for key, (secondary, subordinate) in content["bridges"].items()
        }
        functions = frozenset(parse_sbdf(text) for text in content["functions"])
        return BootSnapshot(str(content["boot_id"]), functions, bridges)
    except (KeyError, TypeError, ValueError, AttributeError, AddressError):
        return None
