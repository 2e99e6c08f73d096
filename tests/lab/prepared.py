"""What is made of the checkout before machines boot, in a folder that several runs of pytest may share.

payload.tar    the machine's second disk, with pcipt's package in it where that is to be installed
SUITE-pvh.img  a PVH dom0's root disk of a release, where the package is installed already
"""

from __future__ import annotations

from pathlib import Path

from .cell import Suite
from .image import Image
from .install import install_on_disk
from .package import build_package, find_package
from .payload import write_payload

PAYLOAD = "payload.tar"


def payload_in(folder: Path, *, with_package: bool) -> Path:
    """Give the payload disk, making it first if it is not there."""
    payload = folder / PAYLOAD
    if not payload.exists():
        extra = {}
        if with_package:
            package = build_package(folder)
            extra[f"dist/{package.name}"] = package
        part = payload.with_suffix(".part")
        write_payload(part, extra)
        part.rename(payload)
    return payload


def image_with_package(folder: Path, image: Image, suite: Suite) -> Image:
    """Give the image with the package installed, its disk made first if it is not there."""
    disk = folder / f"{suite}-pvh.img"
    if not disk.exists():
        part = disk.with_suffix(".part")
        install_on_disk(image, find_package(folder), part)
        part.rename(disk)
    return Image(image.directory, disk)
