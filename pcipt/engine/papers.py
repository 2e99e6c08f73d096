"""Saves the engine's documents; a disk that does not take one is a finding until the next try."""

from collections.abc import Callable, Iterable

from pcipt.engine.interfaces import Keeper
from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import Finding
from pcipt.remap.ledger import Ledger


class Papers:
    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper
        self._trouble: dict[str, Finding] = {}
        self._unsaved: BootSnapshot | None = None

    @property
    def findings(self) -> Iterable[Finding]:
        return self._trouble.values()

    def save_snapshot(self, fresh: BootSnapshot | None = None) -> None:
        """Save a snapshot that was just made, or the one that could not be saved before."""
        snapshot = self._unsaved = fresh or self._unsaved
        if snapshot is not None and self._save("boot-snapshot", lambda: self._keeper.save_snapshot(snapshot)):
            self._unsaved = None

    def save_ledger(self, ledger: Ledger) -> bool:
        """Save the ledger as a whole and what vPCI was seen to map; tells whether both are on disk."""
        saved = self._save("ledger", lambda: self._keeper.save(ledger))
        return self._save("mappings", lambda: self._keeper.save_mappings(ledger)) and saved

    def close(self) -> None:
        self._keeper.close()

    def _save(self, name: str, save: Callable[[], None]) -> bool:
        self._trouble.pop(name, None)
        try:
            save()
        except OSError as error:
            why = f"the {name} cannot be saved ({error.strerror or error}): free the disk, then pcipt resync"
            self._trouble[name] = Finding(f"{name}-unsaved", why)
            return False
        return True
