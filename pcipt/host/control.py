"""The command register of a live function, read and written through sysfs `config` alone, never by ports.

Source: PCI Local Bus 3.0 §6.2.2; linux drivers/pci/pci-sysfs.c (a write is done as the widths that fit).
"""

import os
import stat

from pcipt.errors import InputError, NoSuchDeviceError, NotPermittedError
from pcipt.host import files
from pcipt.host.sysfs import SysfsReader
from pcipt.host.tree import reason
from pcipt.pci import Sbdf

COMMAND = 0x04
_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_command(root: str, sbdf: Sbdf) -> int:
    """Read the command register; all ones is what an absent device answers.

    Raises: NoSuchDeviceError where Linux does not list it; NotPermittedError; InputError otherwise.
    """
    data = _access(root, sbdf, None)
    if len(data) < 2:
        raise InputError(_path(root, sbdf), "ends before the command register")
    return int.from_bytes(data, "little")


def write_command(root: str, sbdf: Sbdf, value: int) -> None:
    """Write the command register.

    Raises: as `read_command`.
    """
    if not 0 <= value <= 0xFFFF:
        raise ValueError(value)
    _access(root, sbdf, value.to_bytes(2, "little"))


def _access(root: str, sbdf: Sbdf, written: bytes | None) -> bytes:
    try:
        with SysfsReader(root) as reader:
            directory = reader.enter(sbdf)
            status = os.stat(files.CONFIG.name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(_path(root, sbdf), "is no regular file")
            mode = os.O_RDONLY if written is None else os.O_WRONLY
            opened = os.open(files.CONFIG.name, _OPEN | mode, dir_fd=directory)
            try:
                if written is None:
                    return os.pread(opened, 2, COMMAND)
                if os.pwrite(opened, written, COMMAND) != len(written):
                    raise InputError(_path(root, sbdf), "took only half of the command register")
                return written
            finally:
                os.close(opened)
    except FileNotFoundError as error:
        raise NoSuchDeviceError(str(sbdf)) from error
    except PermissionError as error:
        raise NotPermittedError(f"config space of {sbdf}", "only root may do that") from error
    except OSError as error:
        raise InputError(_path(root, sbdf), reason(error)) from error


def _path(root: str, sbdf: Sbdf) -> str:
    return os.path.join(root, files.DEVICES, str(sbdf), files.CONFIG.name)
