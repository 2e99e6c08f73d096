"""Writes the engine's files to the store; a write that fails is a finding until the next one succeeds."""

from collections.abc import Callable, Iterable

from pcipt.engine.interfaces import Store
from pcipt.engine.memory import Memory
from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import Finding


class Saver:
    """One finding for each file that could not be written last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._trouble: dict[str, Finding] = {}

    @property
    def findings(self) -> Iterable[Finding]:
        return self._trouble.values()

    def save_boot(self, boot: BootSnapshot) -> bool:
        """Write the boot snapshot; return True if it is on disk."""
        return self._save("boot-snapshot", lambda: self._store.save_snapshot(boot))

    def save(self, memory: Memory) -> bool:
        """Write the whole ledger, the pages that vPCI mapped, and a boot snapshot that could not be written.

        Return True if everything is on disk.
        """
        boot, ledger = memory.boot, memory.ledger
        saved = [
            self._save("ledger", lambda: self._store.save(ledger)),
            self._save("mappings", lambda: self._store.save_mappings(ledger)),
            boot is None or "boot-snapshot" not in self._trouble or self.save_boot(boot),
        ]
        return all(saved)

    def close(self) -> None:
        self._store.close()

    def _save(self, name: str, save: Callable[[], None]) -> bool:
        self._trouble.pop(name, None)
        try:
            save()
        except OSError as error:
            why = f"the {name} cannot be saved ({error.strerror or error}): free the disk, then pcipt resync"
            self._trouble[name] = Finding(f"{name}-unsaved", why)
            return False
        return True
