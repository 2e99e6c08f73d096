"""Build the dom0 image from Debian packages, once per recipe: `python3 -m tests.lab.image [SUITE]`.

The cache lies outside the repository, in $PCIPT_LAB_DIR or ~/.cache/pcipt-lab. A build happens aside and is
renamed when complete, so an image that is there is whole. No machine ever writes to it: one that keeps what
it writes has a copy of the disk.
"""

from __future__ import annotations

import argparse
import fcntl
import gzip
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .cell import SUITES, XEN, Suite
from .errors import LabError, MissingToolError
from .initrd import make_initrd
from .recipe import FILES, HOST_PACKAGES, LEFT_OUT, LINKS, fingerprint, guest_packages
from .sources import read_apt_options, read_sources

TOOLS = ("qemu-system-x86_64", "mmdebstrap", "mke2fs", "git")
BUILD_SECONDS = 1800
KEPT_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Image:
    """The files QEMU starts from; `installed` is a disk that stands in for the image's own.

    `booted` is an initial RAM disk that stands in for the image's own. With `kept`, what dom0 writes stays on
    the disk.
    """

    directory: Path
    installed: Path | None = None
    booted: Path | None = None
    kept: bool = False

    @property
    def xen(self) -> Path:
        """Name the hypervisor, an ELF file as QEMU's multiboot loader wants it."""
        return self.directory / "xen.elf"

    @property
    def kernel(self) -> Path:
        """Name dom0's Linux."""
        return self.directory / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Name dom0's initial RAM disk."""
        return self.booted or self.directory / "initrd"

    @property
    def disk(self) -> Path:
        """Name dom0's root file system, a raw ext4 labelled rootfs."""
        return self.installed or self.directory / "root.img"

    @property
    def root(self) -> Path:
        """Name the folder that the disk was made from, never changed either."""
        return self.directory / "root"


def cache_directory() -> Path:
    """Say where images are kept."""
    named = os.environ.get("PCIPT_LAB_DIR")
    return Path(named) if named else Path.home() / ".cache" / "pcipt-lab"


def say(text: str) -> None:
    """Tell the person waiting what is going on."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def find_tool(name: str) -> str | None:
    """Find a program, also where an ordinary user's PATH does not lead."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")


def run(command: Sequence[str | Path], log: Path, timeout: float = BUILD_SECONDS) -> None:
    """Run a build step, its output in the log; on failure name the step and the log's last lines."""
    words = [str(word) for word in command]
    with log.open("ab") as out:
        try:
            subprocess.run(
                words, stdout=out, stderr=out, stdin=subprocess.DEVNULL, check=True, timeout=timeout
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired, FileNotFoundError) as exc:
            tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
            raise LabError(f"{words[0]} failed ({exc.__class__.__name__}), see {log}:\n{tail}") from exc


def require_host_tools(*, build: bool) -> None:
    """See that QEMU, and for a build the rest, is installed; install it when we are root."""
    needed = TOOLS if build else TOOLS[:1]
    missing = [tool for tool in needed if find_tool(tool) is None]
    if not missing:
        return
    what = f"the lab needs {', '.join(missing)}: apt-get install {' '.join(HOST_PACKAGES)} git"
    if os.geteuid() != 0 or find_tool("apt-get") is None:
        raise MissingToolError(what)
    say(f"installing {', '.join(HOST_PACKAGES)}")
    install = ["apt-get", "-y", "-qq", "-o", "DPkg::Lock::Timeout=300", "install", "--no-install-recommends"]
    for command in (["apt-get", "-qq", "update"], [*install, *HOST_PACKAGES, "git"]):
        done = subprocess.run(
            command,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            capture_output=True,
            text=True,
            check=False,
            timeout=BUILD_SECONDS,
        )
        if done.returncode != 0:
            reason = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            raise MissingToolError(f"{what} ({reason[0]})")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the cache's lock, so that two runs do not build at once."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        end = time.monotonic() + BUILD_SECONDS
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                if time.monotonic() > end:
                    raise LabError(
                        f"another run has held {directory / 'lock'} for {BUILD_SECONDS} s"
                    ) from exc
                if not told:
                    say("waiting for another run that builds the image")
                    told = True
                time.sleep(0.5)
        yield


def ensure_image(suite: Suite) -> Image:
    """Give the image of the current recipe for a release, building it first if it is not there."""
    cache = cache_directory()
    image = Image(cache / f"{suite}-xen{XEN[suite]}-{fingerprint(suite)}")
    if image.directory.is_dir():
        require_host_tools(build=False)
        image.directory.touch()
        return image
    require_host_tools(build=True)
    if os.geteuid() != 0:
        raise MissingToolError(
            "the dom0 image is not built yet, which needs root: sudo python3 -m tests.lab.image"
        )
    with locked(cache):
        if not image.directory.is_dir():
            forget_old_images(cache, suite)
            build_image(cache, image, suite)
    return image


def forget_old_images(cache: Path, suite: Suite) -> None:
    """Remove images of other recipes that nobody has used for a while, and what broken builds have left."""
    for path in cache.glob(f"{suite}-xen*"):
        if path.suffix == ".building" or time.time() - path.stat().st_mtime > KEPT_SECONDS:
            say(f"removing {path}")
            shutil.rmtree(path, ignore_errors=True)


def build_image(cache: Path, image: Image, suite: Suite) -> None:
    """Build aside, then rename."""
    started = time.monotonic()
    aside = cache / f"{image.directory.name}.building"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    log = cache / "build.log"
    log.write_bytes(b"")
    say(f"building the dom0 image in {cache}; this takes some minutes, progress in {log}")
    new = Image(aside)
    bootstrap(suite, new.root, aside, log)
    furnish(new.root)
    boot = new.root / "boot"
    new.xen.write_bytes(gzip.decompress((boot / f"xen-{XEN[suite]}-amd64.gz").read_bytes()))
    kernel = next(boot.glob("vmlinuz-*"))
    shutil.copy(kernel, new.kernel)
    new.initrd.write_bytes(make_initrd(new.root, kernel.name.removeprefix("vmlinuz-")))
    make_disk(new.root, new.disk, log)
    aside.rename(image.directory)
    say(f"image built in {time.monotonic() - started:.0f} s")


def make_disk(root: Path, disk: Path, log: Path) -> None:
    """Make a file system of a folder."""
    run(["truncate", "-s", "4G", disk], log)
    mke2fs = find_tool("mke2fs") or "mke2fs"
    run([mke2fs, "-q", "-t", "ext4", "-O", "^has_journal", "-L", "rootfs", "-d", root, disk], log)


def bootstrap(suite: Suite, root: Path, aside: Path, log: Path) -> None:
    """Unpack and configure the packages into a folder."""
    sources = aside / "sources.list"
    sources.write_text("".join(f"{source.line()}\n" for source in read_sources(suite)), encoding="utf-8")
    packages = ",".join(guest_packages(suite))
    command: list[str | Path] = ["mmdebstrap", "--variant=minbase", f"--include={packages}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    command += [f"--aptopt={option}" for option in read_apt_options()]
    run([*command, suite, root, sources], log)


def furnish(root: Path) -> None:
    """Add the recipe's own files and links."""
    for name, (mode, text) in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
    for name, target in LINKS.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)
    shutil.rmtree(root / "var/cache/apt", ignore_errors=True)
    shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)


def main() -> int:
    """Build the image if it is not there and say where it is."""
    parser = argparse.ArgumentParser(description="Build the lab's dom0 image.")
    parser.add_argument("suite", choices=SUITES, nargs="?", default=SUITES[0])
    try:
        image = ensure_image(parser.parse_args().suite)
    except LabError as exc:
        print(f"lab: {exc}", file=sys.stderr)
        return 1
    print(image.directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
