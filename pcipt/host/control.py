"""Read and write single registers of a live function. Only the sysfs file `config` is used, never I/O ports.

Only the registers of a closed list can be written: the command register, BARs, and a bridge's bus numbers.
Source: PCI Local Bus 3.0 §6.2.2; linux drivers/pci/pci-sysfs.c (a write is split into accesses of 1, 2 or 4
        bytes).
"""

import os
import stat

from pcipt.errors import InputError, NoSuchDeviceError, NotPermittedError
from pcipt.host import files
from pcipt.host.sysfs import SysfsReader
from pcipt.host.tree import reason
from pcipt.pci import Sbdf
from pcipt.pci.config import WRITABLE, Register

_OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def read_register(root: str, sbdf: Sbdf, register: Register) -> int:
    """Return the value of a register.

    If Linux lists the function and the device does not answer, all bits of the value are one, and nothing is
    raised.
    Raises: NoSuchDeviceError if Linux does not list the function or it has no file `config`;
            NotPermittedError if permission is refused; InputError for every other failure, for example if
            only the first 64 bytes may be read and the register is behind them.
    """
    data = _access(root, sbdf, register, None)
    if len(data) < register.size:
        why = f"has only {len(data)} bytes at the register {register.offset:#x}: only root may read all"
        raise InputError(_path(root, sbdf), why)
    return int.from_bytes(data, "little")


def write_register(root: str, sbdf: Sbdf, register: Register, value: int) -> None:
    """Write a value to a register. It is not read back, so a write that the device ignores is not noticed.

    Raises: ValueError if the register is not in `WRITABLE` or the value does not fit in it; NoSuchDeviceError
            if Linux does not list the function or it has no file `config`; NotPermittedError if permission is
            refused; InputError for every other failure.
    """
    if register not in WRITABLE or not 0 <= value < 1 << 8 * register.size:
        raise ValueError(register, value)
    _access(root, sbdf, register, value.to_bytes(register.size, "little"))


def _access(root: str, sbdf: Sbdf, register: Register, written: bytes | None) -> bytes:
    """Read the register if `written` is None, else write the bytes `written`.

    Return the bytes that were read or written. A read may return fewer bytes than the register has.
    Raises: NoSuchDeviceError, NotPermittedError and InputError as in `read_register`.
    """
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
                    return os.pread(opened, register.size, register.offset)
                if os.pwrite(opened, written, register.offset) != register.size:
                    why = f"took only a part of the register at {register.offset:#x}"
                    raise InputError(_path(root, sbdf), why)
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
    """Return the path of the function's file `config`, for messages."""
    return os.path.join(root, files.DEVICES, str(sbdf), files.CONFIG.name)
