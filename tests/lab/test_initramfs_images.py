"""What dracut and initramfs-tools put into an image: the hook, in its place, and all that it needs.

No machine boots: a small Debian makes the images, and the shell and the od of each image run keep.sh on
random machines. The resolver of pcipt gives what is expected.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from pcipt.pci.policy.compiled import text_from_policy
from pcipt.pci.policy.resolve import resolve
from tests.initramfs.test_keep import FIRST, WORDS, a_case, identities

from .cell import VENDORS
from .chroot import Chroot, copied, ensure_system
from .conftest import platform_of
from .errors import MissingToolError
from .payload import REPOSITORY

PACKAGES = ("dracut-core", "initramfs-tools", "linux-image-amd64", "busybox", "cpio", "zstd")
LIST = "etc/pcipt/passthrough.list"
ENTRY = "- 0000:00 0:1c.0 - - - - - - -\n"
MACHINES = 40
pytestmark = pytest.mark.timeout(1500)  # the Debian is made and the images are built
MAKERS = {
    "dracut": "dracut --force --no-hostonly --no-early-microcode --kver {kernel} {image}",
    "initramfs-tools": "mkinitramfs -o {image} {kernel}",
}


@pytest.fixture(scope="module")
def system(request: pytest.FixtureRequest) -> Iterator[Chroot]:
    """Give a Debian with both makers of images, in which the hooks are installed and something is kept."""
    platform = platform_of(request.config)
    if platform.vendor != VENDORS[0]:
        pytest.skip("the images do not depend on the IOMMU's vendor: the cells of the other one make them")
    try:
        made = ensure_system(platform.suite, PACKAGES)
    except MissingToolError as exc:
        pytest.skip(str(exc))
    with copied(made) as chroot:
        unpacked = chroot.root / "root/checkout"
        for name in ("initramfs", "scripts"):
            shutil.copytree(REPOSITORY / name, unpacked / name)
        chroot.run("sh", "/root/checkout/scripts/install-initramfs.sh", "/")
        (chroot.root / LIST).parent.mkdir(parents=True)
        (chroot.root / LIST).write_text(ENTRY)
        (chroot.root / LIST).chmod(0o600)
        yield chroot


@dataclass(frozen=True)
class Unpacked:
    """The content of an image, which can be entered."""

    maker: str
    chroot: Chroot

    def hook(self) -> str:
        """Give the text of what runs the hook, where this maker's images have it before udev."""
        root = self.chroot.root
        if self.maker == "dracut":
            # dracut of Debian 13 has two names for the folder: one of them is a link to the other
            (found,) = {path.resolve() for path in root.glob("**/hooks/pre-udev/10-keep-hook.sh")}
            return found.read_text()
        order = (root / "scripts/init-top/ORDER").read_text()
        assert order.index("/scripts/init-top/pcipt") < order.index("/scripts/init-top/udev")
        return (root / "scripts/init-top/pcipt").read_text()


@pytest.fixture(scope="module", params=list(MAKERS))
def unpacked(request: pytest.FixtureRequest, system: Chroot) -> Unpacked:
    kernel = next((system.root / "lib/modules").iterdir()).name
    image, folder = f"/root/{request.param}.img", f"root/{request.param}"
    system.run(*MAKERS[request.param].format(kernel=kernel, image=image).split())
    system.run("unmkinitramfs", image, f"/{folder}")
    top = system.root / folder
    root = top / "main" if (top / "main").is_dir() else top
    null = root / "dev/null"  # the kernel mounts its devices over the image's
    if not null.exists():
        null.parent.mkdir(exist_ok=True)
        os.mknod(null, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    return Unpacked(request.param, Chroot(root))


def test_the_image_has_the_hook_the_list_and_the_driver(unpacked: Unpacked) -> None:
    root = unpacked.chroot.root
    assert "/usr/lib/pcipt/boot.sh" in unpacked.hook()
    assert (root / LIST).read_text() == ENTRY
    assert (root / LIST).stat().st_mode & 0o777 == 0o600
    for name in ("keep.sh", "boot.sh"):
        assert (root / "usr/lib/pcipt" / name).read_text() == (REPOSITORY / "initramfs" / name).read_text()
    assert list(root.glob("usr/lib/modules/*/**/xen-pciback.ko*"))


def test_shell_and_od_of_the_image_find_what_the_resolver_finds(unpacked: Unpacked) -> None:
    trees = unpacked.chroot.root / "trees"
    shutil.rmtree(trees, ignore_errors=True)
    expected, words = [], []
    for seed in range(FIRST, FIRST + MACHINES):
        _, entries, now, _ = a_case(seed)
        found = resolve(entries, identities(now))
        expected += [(WORDS[each.state], "-" if each.sbdf is None else str(each.sbdf)) for each in found]
        now.write(trees / str(seed))
        (trees / str(seed) / "list").write_text(text_from_policy(entries, ()))
        words += [f"/trees/{seed}", f"/trees/{seed}/list"]
    done = unpacked.chroot.run("sh", "/usr/lib/pcipt/keep.sh", *words)
    assert [line for line in done.stderr.splitlines() if "setlocale" not in line] == []  # it has no locales
    assert [tuple(line.split()[:2]) for line in done.stdout.splitlines()] == expected
    assert {word for word, _ in expected} == set(WORDS.values())
