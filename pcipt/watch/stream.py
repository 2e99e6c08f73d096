"""A recording as a stream: plain or gzip, a file, a pipe or standard input, in constant memory.

Only the head can be looked at before it is read. A line longer than any record's is not held but told.
"""

import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from pcipt.errors import InputError, MalformedError

HEAD = 1 << 16
LINE_LIMIT = 1 << 14
_GZIP = b"\x1f\x8b"


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes | None: ...

    def readinto(self, buffer: memoryview, /) -> int | None: ...

    def close(self) -> None: ...


class Stream:
    """An opened recording; `position` counts the bytes taken, decompressed ones in a compressed file."""

    def __init__(self, path: str) -> None:
        self.name = "stdin" if path == "-" else path
        self.position = 0
        try:
            self._raw = _standard_input() if path == "-" else io.FileIO(path, "rb")
        except (OSError, ValueError) as error:
            raise InputError(path, getattr(error, "strerror", None) or str(error)) from error
        self._owned = path != "-"
        self._body: _Readable = self._raw
        self.head = b""
        try:
            self._open_body()
        except BaseException:
            self.close()
            raise

    def _open_body(self) -> None:
        first = _read_up_to(self._raw, HEAD, self.name)
        self.head = first
        if self._owned and self._raw.seekable():
            self._raw.seek(0)
            self._body = self._raw
        else:
            self._body = _Chained(first, self._raw)
        if first.startswith(_GZIP):
            self._body = _Unzipped(_Chained(b"", self._body))
            try:
                self.head = self._read(HEAD)
            except MalformedError:
                self.head = b""
                return
            self._body = _Chained(self.head, self._body)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._owned:
            self._raw.close()

    @property
    def done(self) -> float | None:
        """Tell which part of the file is read, from 0 to 1; None where its end is not known."""
        if not self._owned or not self._raw.seekable():
            return None
        size = os.fstat(self._raw.fileno()).st_size
        return min(1.0, self._raw.tell() / size) if size else None

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes; none are left at the end.

        Raises: MalformedError where compressed data is damaged or cut.
        """
        data = self._read(size)
        self.position += len(data)
        return data

    def readinto(self, buffer: bytearray) -> int:
        """Fill a buffer as far as the stream goes on; less only at its end."""
        view = memoryview(buffer)
        filled = 0
        while filled < len(view):
            try:
                count = self._body.readinto(view[filled:]) or 0
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                if filled:
                    break  # what came before it is good; the next call meets the damage again
                raise self._damaged(error) from error
            except OSError as error:
                raise InputError(self.name, error.strerror or str(error)) from error
            if not count:
                break
            filled += count
        self.position += filled
        return filled

    def lines(self) -> Iterator[bytes | None]:
        """Walk the lines without their ends; None stands for one that is longer than any record."""
        rest = b""
        overlong = False
        while data := self.read(HEAD):
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield None if overlong or len(line) > LINE_LIMIT else line
                overlong = False
            if len(rest) > LINE_LIMIT:
                rest, overlong = b"", True
        if overlong or rest:
            yield None if overlong else rest

    def _read(self, size: int) -> bytes:
        try:
            return _read_up_to(self._body, size, self.name)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> MalformedError:
        return MalformedError(self.name, self.position, f"compressed data is damaged or cut ({error})")


class _Chained(io.RawIOBase):
    """What was already read, then the rest."""

    def __init__(self, head: bytes, rest: _Readable) -> None:
        super().__init__()
        self._head, self._rest = memoryview(head), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed wants any buffer
        if self._head:
            count = min(len(self._head), len(buffer))
            buffer[:count] = self._head[:count]
            self._head = self._head[count:]
            return count
        return self._rest.readinto(buffer) or 0


class _Unzipped(io.RawIOBase):
    """What is compressed; damage is met again by every read behind it, while gzip's own reader may go on."""

    def __init__(self, packed: io.RawIOBase) -> None:
        super().__init__()
        self._unzip = gzip.GzipFile(fileobj=packed, mode="rb")
        self._damage: Exception | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed wants any buffer
        if self._damage is not None:
            raise self._damage
        try:
            return self._unzip.readinto(buffer)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self._damage = error
            raise


def _standard_input() -> io.FileIO:
    if sys.stdin is None:
        raise ValueError("is closed")
    return io.FileIO(sys.stdin.fileno(), "rb", closefd=False)


def _read_up_to(source: _Readable, size: int, name: str) -> bytes:
    """Read until there are `size` bytes or the end; pipes give less at a time."""
    pieces = bytearray()
    while len(pieces) < size:
        try:
            data = source.read(size - len(pieces))
        except (EOFError, zlib.error, gzip.BadGzipFile):
            if pieces:
                break
            raise
        except OSError as error:
            raise InputError(name, error.strerror or str(error)) from error
        if not data:
            break
        pieces += data
    return bytes(pieces)
