"""Hold pieces of a machine's physical memory and read them by physical address.

An image is hostile input: a read that is not wholly inside one piece yields None, and every search is
bounded.
"""

from collections.abc import Sequence

from pcipt import values as attrs
from pcipt.errors import MalformedError
from pcipt.hints import Protocol
from pcipt.pci import Address, Range

ADDRESS_LIMIT = 1 << 64
_MAX_HITS = 1 << 16  # occurrences that one search looks at


class Bytes(Protocol):
    """The methods that `bytes` and a memory-mapped file have in common."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...

    def find(self, wanted: bytes, start: int, end: int, /) -> int: ...


@attrs.frozen
class Piece:
    """Bytes of memory, beginning at the physical address `start`."""

    start: Address
    data: Bytes

    @property
    def end(self) -> int:
        """The address behind the last byte (exclusive end)."""
        return self.start + len(self.data)


@attrs.frozen
class MemoryImage:
    """Pieces of memory, sorted by address, that do not overlap. `image_from_pieces` makes it."""

    pieces: tuple[Piece, ...]

    def room(self, address: int) -> int:
        """Return the number of bytes from `address` to the end of its piece; 0 if it is in no piece."""
        return next((piece.end - address for piece in self.pieces if piece.start <= address < piece.end), 0)

    def read(self, address: int, size: int) -> bytes | None:
        """Return `size` bytes at `address`; None if they are not wholly inside one piece.

        A range that crosses into the next piece gives None, even if the pieces are adjacent.
        """
        for piece in self.pieces:
            if piece.start <= address and address + size <= piece.end:
                at = address - piece.start
                return piece.data[at : at + size]
        return None

    def read_string(self, address: int, limit: int) -> bytes | None:
        """Return the bytes from `address` up to the first zero byte, without the zero; None without a zero.

        The zero must be among the first `limit` bytes and in the same piece as `address`. None is returned
        too if no piece contains `address`.
        """
        data = self.read(address, min(limit, self.room(address))) or b""
        end = data.find(b"\0")
        return None if end < 0 else data[:end]

    def search(self, wanted: bytes, step: int, limit: int) -> list[Address]:
        """Return the addresses that are multiples of `step` and at which `wanted` begins, sorted.

        At most `limit` addresses are returned. The search ends after 65536 occurrences; occurrences at other
        addresses than multiples of `step` are counted too. An occurrence that crosses from one piece into the
        next is not found.
        """
        found: list[Address] = []
        hits = 0
        for piece in self.pieces:
            at = piece.data.find(wanted, 0, len(piece.data))
            while at >= 0 and len(found) < limit and hits < _MAX_HITS:
                hits += 1
                if (piece.start + at) % step == 0:
                    found.append(Address(piece.start + at))
                at = piece.data.find(wanted, at + 1, len(piece.data))
        return found

    def covers(self, span: Range) -> bool:
        """Return True if one piece contains the whole span.

        A span that crosses from one piece into the next gives False, even if the pieces are adjacent.
        """
        return self.room(span.start) >= span.size


def image_from_pieces(pieces: Sequence[Piece], source: str = "image") -> MemoryImage:
    """Return the image of these pieces, which may be in any order. `source` names the input in errors.

    Raises: MalformedError if a piece is empty, does not fit into 64 bits, or overlaps another piece.
    """
    ordered = sorted(pieces, key=lambda piece: piece.start)
    end = 0
    for piece in ordered:
        if not len(piece.data):
            raise MalformedError(source, piece.start, "there is no byte in it")
        if piece.end > ADDRESS_LIMIT or piece.start < 0:
            raise MalformedError(source, piece.start, "its addresses do not fit into 64 bits")
        if piece.start < end:
            raise MalformedError(
                source, piece.start, "it overlaps another piece, which ends behind this place"
            )
        end = piece.end
    return MemoryImage(tuple(ordered))
