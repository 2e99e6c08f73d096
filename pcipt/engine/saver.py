"""Writes the engine's files to the store. A file that cannot be written is a finding until it is written."""

from collections.abc import Callable, Iterable, Sequence

from pcipt.engine.interfaces import Store
from pcipt.engine.memory import Memory
from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import Finding
from pcipt.remap.steps import AnyStep


class Saver:
    """Writes ledger, mappings and boot snapshot; it never raises, `findings` tells what failed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._trouble: dict[str, Finding] = {}

    @property
    def findings(self) -> Iterable[Finding]:
        """Return one finding for each file whose last write failed."""
        return self._trouble.values()

    def save_boot(self, boot: BootSnapshot) -> bool:
        """Write the boot snapshot. Return True if it is on disk, False if writing failed."""
        return self._save("boot-snapshot", lambda: self._store.save_snapshot(boot))

    def note(self, steps: Sequence[AnyStep]) -> bool:
        """Append steps to the ledger's file. Return True if they are on disk or there are none."""
        return not steps or self._save("ledger", lambda: self._store.append(steps))

    @property
    def is_due(self) -> bool:
        """Return True if the ledger's file of steps has become long, and the last `save` did not fail."""
        return self._store.is_long and not self._trouble

    def save(self, memory: Memory) -> bool:
        """Write the ledger as a whole and the pages that vPCI mapped.

        If the last write of the boot snapshot failed, it is written again. Return True if no write failed.
        """
        boot, ledger = memory.boot, memory.ledger
        saved = [
            self._save("mappings", lambda: self._store.save_mappings(ledger)),
            self._save("ledger", lambda: self._store.save(ledger)),  # without the steps, which it includes
            boot is None or "boot-snapshot" not in self._trouble or self.save_boot(boot),
        ]
        return all(saved)

    def close(self) -> None:
        """Close the files of the store."""
        self._store.close()

    def _save(self, name: str, save: Callable[[], None]) -> bool:
        """Write one file; replace its finding. Return True if it was written."""
        self._trouble.pop(name, None)
        try:
            save()
        except OSError as error:
            why = f"the {name} cannot be saved ({error.strerror or error}): free the disk, then pcipt resync"
            self._trouble[name] = Finding(f"{name}-unsaved", why)
            return False
        return True
