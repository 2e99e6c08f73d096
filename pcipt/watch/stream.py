"""Read a recording as a stream: plain or gzip, from a file, a pipe or standard input, in constant memory.

The first bytes (`head`) can be examined before reading. A line that is too long is not kept in memory.
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
    """The methods that a source of bytes must have."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most `size` bytes; no bytes (or None) at the end."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill `buffer` or a part of it, and return the number of bytes; 0 (or None) at the end."""

    def close(self) -> None:
        """Close the source."""


class Stream:
    """An opened recording. The path `-` is standard input.

    `head` holds the first bytes (decompressed, at most 64 KiB); `read` returns them again. If the compressed
    data is damaged from the start, `head` is empty, and `read` raises. `position` counts the bytes that were
    read; in a compressed file, the decompressed bytes. `name` is the path, or "stdin".
    Raises: InputError if the file cannot be opened or read.
    """

    def __init__(self, path: str) -> None:
        self.name = "stdin" if path == "-" else path
        self.position = 0
        try:
            self._raw = _standard_input() if path == "-" else io.FileIO(path, "rb")
        except (OSError, ValueError) as error:
            raise InputError(path, getattr(error, "strerror", None) or str(error)) from error
        self._owned = path != "-"
        self._content: _Readable = self._raw
        self.head = b""
        try:
            self._open_content()
        except BaseException:
            self.close()
            raise

    def _open_content(self) -> None:
        """Read the head, and open the decompressor if the head begins as gzip does.

        Raises: InputError if reading fails. Damaged compressed data raises nothing here.
        """
        first = _read_up_to(self._raw, HEAD, self.name)
        self.head = first
        if self._owned and self._raw.seekable():
            self._raw.seek(0)
            self._content = self._raw
        else:
            self._content = _Chained(first, self._raw)
        if first.startswith(_GZIP):
            self._content = _Unzipped(_Chained(b"", self._content))
            try:
                self.head = self._read(HEAD)
            except MalformedError:
                self.head = b""
                return
            self._content = _Chained(self.head, self._content)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. Standard input stays open."""
        if self._owned:
            self._raw.close()

    @property
    def done(self) -> float | None:
        """Return the fraction of the file that has been read, from 0 to 1. For a compressed file, it is the
        fraction of the compressed bytes.

        Return None for a pipe, standard input or an empty file.
        """
        if not self._owned or not self._raw.seekable():
            return None
        size = os.fstat(self._raw.fileno()).st_size
        return min(1.0, self._raw.tell() / size) if size else None

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes. Return fewer only at the end of the stream, and no bytes after the
        end.

        Damaged compressed data ends the stream: the bytes before the damage are returned, and the next call
        raises.
        Raises: MalformedError if compressed data is damaged or cut; InputError if reading fails.
        """
        data = self._read(size)
        self.position += len(data)
        return data

    def readinto(self, buffer: bytearray) -> int:
        """Fill `buffer` and return the number of bytes read. The number is smaller than the buffer only at
        the end of the stream, and 0 after the end.

        Damaged compressed data ends the stream: the bytes before the damage are copied and counted, and the
        next call raises.
        Raises: MalformedError if compressed data is damaged or cut; InputError if reading fails.
        """
        view = memoryview(buffer)
        filled = 0
        while filled < len(view):
            try:
                count = self._content.readinto(view[filled:]) or 0
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                if filled:
                    break  # the bytes before the damage are good; the next call raises
                raise self._damage_error(error) from error
            except OSError as error:
                raise InputError(self.name, error.strerror or str(error)) from error
            if not count:
                break
            filled += count
        self.position += filled
        return filled

    def lines(self) -> Iterator[bytes | None]:
        """Yield the lines without their newlines. A last line without a newline is yielded too.

        A line of more than 16 KiB is longer than any record. None is yielded in its place.
        Raises: MalformedError if compressed data is damaged or cut; InputError if reading fails.
        """
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
        """Return the next `size` bytes as `read` does, without counting them in `position`. The same
        exceptions are raised.
        """
        try:
            return _read_up_to(self._content, size, self.name)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise self._damage_error(error) from error

    def _damage_error(self, error: Exception) -> MalformedError:
        """Return the exception for damaged compressed data at the present position."""
        return MalformedError(self.name, self.position, f"compressed data is damaged or cut ({error})")


class _Chained(io.RawIOBase):
    """A stream that first returns the bytes `head`, then continues with `rest`."""

    def __init__(self, head: bytes, rest: _Readable) -> None:
        super().__init__()
        self._head, self._rest = memoryview(head), rest

    def readable(self) -> bool:
        """Return True, as io.RawIOBase requires."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed declares every kind of buffer
        """Copy the next bytes of the head, or read from the rest if the head is used up. Return the number of
        bytes; 0 at the end.
        """
        if self._head:
            count = min(len(self._head), len(buffer))
            buffer[:count] = self._head[:count]
            self._head = self._head[count:]
            return count
        return self._rest.readinto(buffer) or 0


class _Unzipped(io.RawIOBase):
    """The decompressed content of a gzip stream. After damaged data, every further read raises again.

    This class is needed because gzip's own reader could continue after the damage.
    """

    def __init__(self, packed: io.RawIOBase) -> None:
        super().__init__()
        self._unzip = gzip.GzipFile(fileobj=packed, mode="rb")
        self._damage: Exception | None = None

    def readable(self) -> bool:
        """Return True, as io.RawIOBase requires."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed declares every kind of buffer
        """Read decompressed bytes and return their number; 0 at the end. After damaged data, raise the same
        exception again.

        Raises: EOFError, zlib.error or gzip.BadGzipFile if the data is damaged or cut.
        """
        if self._damage is not None:
            raise self._damage
        try:
            data = self._unzip.read1(len(buffer))  # `readinto` reads on, and drops all of it if that fails
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self._damage = error
            raise
        buffer[: len(data)] = data
        return len(data)


def _standard_input() -> io.FileIO:
    """Return standard input as an unbuffered binary file. Closing this file does not close standard input.

    Raises: ValueError if standard input is closed; OSError if it has no descriptor.
    """
    if sys.stdin is None:
        raise ValueError("is closed")
    return io.FileIO(sys.stdin.fileno(), "rb", closefd=False)


def _read_up_to(source: _Readable, size: int, name: str) -> bytes:
    """Return the next `size` bytes of `source`, fewer only at its end. One read of a pipe can return fewer
    bytes, so `source` is read until there are enough.

    If compressed data is damaged after good bytes, the good bytes are returned, and nothing is raised.
    Raises: InputError if reading fails; EOFError, zlib.error or gzip.BadGzipFile if the data is damaged
            before the first byte.
    """
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
