"""Pieces of a machine's physical memory: where each begins, and bounded reads by physical address.

An image is hostile input: a read either lies wholly inside what was given or yields None, and no search runs
further than its limit.
"""

from collections.abc import Sequence
from typing import Protocol

import attrs

from pcipt.errors import MalformedError
from pcipt.pci import Address, Range

ADDRESS_LIMIT = 1 << 64
_MAX_HITS = 1 << 16  # of a search, aligned or not


class Bytes(Protocol):
    """What `bytes` and a memory-mapped file have in common."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...

    def find(self, wanted: bytes, start: int, end: int, /) -> int: ...


@attrs.frozen
class Piece:
    """Memory from physical address `start` on."""

    start: Address
    data: Bytes

    @property
    def end(self) -> int:
        return self.start + len(self.data)


@attrs.frozen
class MemoryImage:
    """Pieces in address order that do not overlap; made by `image_from_pieces`."""

    pieces: tuple[Piece, ...]

    def room(self, address: int) -> int:
        """Tell how many bytes the image holds from `address` on without a gap inside one piece."""
        return next((piece.end - address for piece in self.pieces if piece.start <= address < piece.end), 0)

    def read(self, address: int, size: int) -> bytes | None:
        for piece in self.pieces:
            if piece.start <= address and address + size <= piece.end:
                at = address - piece.start
                return piece.data[at : at + size]
        return None

    def read_string(self, address: int, limit: int) -> bytes | None:
        """Read up to (without) the terminating zero; None where there is none within `limit` bytes."""
        data = self.read(address, min(limit, self.room(address))) or b""
        end = data.find(b"\0")
        return None if end < 0 else data[:end]

    def search(self, wanted: bytes, step: int, limit: int) -> list[Address]:
        """Find the places of `wanted` at multiples of `step`, the first `limit` of them."""
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
        return self.room(span.start) >= span.size


def image_from_pieces(pieces: Sequence[Piece], source: str = "image") -> MemoryImage:
    """Order the pieces.

    Raises: MalformedError where a piece is empty, ends above 2^64, or lies over another.
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
