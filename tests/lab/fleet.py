"""The machines of one test run: booted and furnished side by side in the background, given when ready."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Self

from .cell import FIRST, PLAIN, Cell, Extra, Mode, Platform
from .errors import LabError, MachineDiedError
from .image import Image, ensure_image, say
from .install import BEFORE_BOOT, install
from .machine import Dom0
from .prepared import image_with_package, payload_in

FIRST_BOOT_SECONDS = 240.0


class Fleet:
    """The machines of the modes given on one platform, each with or without pcipt installed.

    `prepared` is a folder with what they boot from (prepared.py), kept; without it they make their own.
    """

    def __init__(
        self,
        modes: Mapping[Mode, bool],
        output: Path,
        prepared: Path | None = None,
        platform: Platform = FIRST,
        extra: Extra = PLAIN,
    ) -> None:
        self._modes = modes
        self._platform = platform
        self._extra = extra
        self._output = output
        self._pool = ThreadPoolExecutor(max_workers=2 * len(modes) + 1, thread_name_prefix="lab")
        self._temporary = tempfile.TemporaryDirectory(prefix="pcipt-lab-")
        self._folder = prepared or Path(self._temporary.name)
        self._boots: dict[Mode, Future[Dom0]] = {}
        self._installs: dict[Mode, Future[float]] = {}
        self._machines: dict[Mode, Dom0] = {}
        self._locks: list[IO[str]] = []

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def open(self) -> None:
        """Start everything in the background; two runs cannot leave their records in one folder."""
        self._output.mkdir(parents=True, exist_ok=True)
        for mode in self._modes:
            self._locks.append((self._output / f"{mode}.lock").open("w"))
            try:
                fcntl.flock(self._locks[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                self.close()
                where = self._output / mode
                raise LabError(f"another lab run writes to {where}: give --lab-output") from exc
        prepared = self._pool.submit(self._prepare)
        for mode, with_pcipt in self._modes.items():
            self._boots[mode] = self._pool.submit(self._boot, mode, prepared)
            if with_pcipt:
                self._installs[mode] = self._pool.submit(self._install, mode)

    def close(self) -> None:
        """End everything, finished or not."""
        for mode in self._modes:
            self.release(mode)
        self._pool.shutdown(cancel_futures=True)
        self._temporary.cleanup()
        for lock in self._locks:
            lock.close()

    def machine(self, mode: Mode) -> Dom0:
        """Give a booted machine, when its installation, if one is wanted, has ended well or badly.

        Raises: what went wrong while it was built or booted.
        """
        machine = self._boots[mode].result()
        if mode in self._installs:
            wait([self._installs[mode]])
        return machine

    def installation(self, mode: Mode) -> float:
        """Wait until pcipt is installed there; give the seconds it took."""
        return self._installs[mode].result()

    def release(self, mode: Mode) -> None:
        """Collect a machine's records and end it; also one that is still booting."""
        boot = self._boots.pop(mode, None)
        install = self._installs.pop(mode, None)
        machine = self._machines.pop(mode, None)
        if machine is None:
            return
        if (boot is not None and not boot.done()) or (install is not None and not install.done()):
            machine.abort()
        try:
            machine.close()
        except LabError as exc:
            say(str(exc))

    def _prepare(self) -> tuple[Image, Path]:
        return ensure_image(self._platform.suite), payload_in(
            self._folder, with_package=any(self._modes.values())
        )

    def _boot(self, mode: Mode, prepared: Future[tuple[Image, Path]]) -> Dom0:
        image, payload = prepared.result()
        if self._modes[mode] and mode in BEFORE_BOOT:
            image = image_with_package(self._folder, image, self._platform.suite)
        machine = self._machines[mode] = self._machine(mode, image, payload)
        try:
            machine.start(FIRST_BOOT_SECONDS)
        except MachineDiedError as exc:
            if mode not in self._boots:
                raise  # ended on purpose
            # Under emulation a PVH dom0 hangs now and then while it binds its first interrupts.
            say(f"{exc.why}; booting it once more")
            machine.close()
            machine = self._machines[mode] = self._machine(mode, image, payload)
            machine.start()
        say(f"{mode} dom0 up after {machine.boot_seconds:.0f} s")
        return machine

    def _machine(self, mode: Mode, image: Image, payload: Path) -> Dom0:
        return Dom0(Cell(self._platform, mode), image, payload, self._output / mode, self._extra)

    def _install(self, mode: Mode) -> float:
        seconds = install(self._boots[mode].result())
        say(f"{mode}: pcipt installed in {seconds:.0f} s")
        return seconds
