"""Inputs that are nearly right: good ones with some bytes, numbers and words changed. The same for a seed."""

import re
from random import Random

INTERESTING = [0, 1, 7, 8, 16, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 0x8000_0000, (1 << 64) - 1]
_TOKEN = re.compile(rb"0x[0-9a-fA-F]+|-?\d+(?:\.\d+)?|\"[^\"\n]*\"|\w+|[\[\]{}:,<>=@./-]")
REPLACEMENTS = [
    b"0", b"-1", b"99999999999999999999999", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""',
    b'"\\ud800"',
    b"\xff", b"\0", b"\x1b[31m", b"..", b"%s", b"0x", b"[" * 200, b"9" * 5000, "\u0662".encode(), b"\r\n",
]  # fmt: skip


def inputs(corpus, seed):
    """Yield the corpus, then changed inputs without end."""
    random = Random(seed)
    yield from corpus
    while True:
        data = random.choice(corpus) if corpus else b""
        for _ in range(random.choice([1, 1, 2, 3, 8])):
            data = random.choice(CHANGES)(data, random, corpus)
        yield data


def _flip(data, random, _corpus):
    if not data:
        return b"\0"
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]


def _number(data, random, _corpus):
    """Write a number that is often wrong over some bytes."""
    size = random.choice([1, 2, 4, 8])
    at = random.randrange(len(data) + 1)
    value = random.choice([*INTERESTING, random.getrandbits(64), len(data)]) & (1 << 8 * size) - 1
    return data[:at] + value.to_bytes(size, random.choice(["little", "big"])) + data[at + size :]


def _token(data, random, _corpus):
    """Replace a word by another one of the same input or by a strange one."""
    found = list(_TOKEN.finditer(data[:20_000]))
    if not found:
        return data
    where, other = random.choice(found), random.choice(found)
    word = random.choice([other.group(), random.choice(REPLACEMENTS), where.group() * 2])
    return data[: where.start()] + word + data[where.end() :]


def _cut(data, random, _corpus):
    return data[: random.randrange(len(data) + 1)]


def _drop(data, random, _corpus):
    first, last = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return data[:first] + data[last:]


def _repeat(data, random, _corpus):
    first, last = sorted(random.randrange(len(data) + 1) for _ in range(2))
    return (data[:last] + data[first:last] * random.choice([1, 3, 50]) + data[last:])[: 1 << 17]


def _splice(data, random, corpus):
    other = random.choice(corpus)
    return data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]


CHANGES = (_flip, _number, _token, _token, _cut, _drop, _repeat, _splice)
