"""Small JSON documents that survive a crash: written to a new file, synced, renamed over the old one.

    {"format": 1, "sha256": "…", "content": {…}}

A damaged document, or one of a newer format, is kept aside and said; its reader starts afresh.
"""

import contextlib
import hashlib
import json
import os
from typing import Any

from pcipt.pci import Finding

FORMAT = 1
SIZE_LIMIT = 64 * 1024 * 1024


class Document:
    """One file; `name` tells in findings what it holds."""

    def __init__(self, path: str, name: str) -> None:
        self.path = path
        self.name = name

    def load(self) -> tuple[Any, Finding | None]:
        """Read the content; None if there is none or it cannot be trusted (then with a finding).

        Raises: OSError where the file exists and cannot be read.
        """
        try:
            with open(self.path, "rb") as file:
                data = file.read(SIZE_LIMIT)
        except FileNotFoundError:
            return None, None
        content, why = _unwrap(data)
        if why is None:
            return content, None
        aside = self._put_aside()
        text = (
            f"{self.path}: {why}; kept as {aside}, the {self.name} is rebuilt from what Xen and hardware say"
        )
        return None, Finding(f"{self.name}-damaged", text)

    def save(self, content: Any) -> None:
        """Replace the document; when this returns, it is on disk.

        Raises: OSError; the old document is then still there whole.
        """
        body = _canonical(content)
        whole = {"format": FORMAT, "sha256": hashlib.sha256(body).hexdigest(), "content": content}
        directory, base = os.path.split(self.path)
        fresh = os.path.join(directory, f".{base}.new")
        try:
            with open(fresh, "wb") as file:
                file.write(json.dumps(whole, indent=1).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(fresh)
            raise
        descriptor = os.open(directory or ".", os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _put_aside(self) -> str:
        for number in range(1, 1000):
            aside = f"{self.path}.damaged-{number}"
            if not os.path.exists(aside):
                os.replace(self.path, aside)
                return aside
        aside = f"{self.path}.damaged"
        os.replace(self.path, aside)
        return aside


def _canonical(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _unwrap(data: bytes) -> tuple[Any, str | None]:
    try:
        whole = json.loads(data)
        version, digest, content = whole["format"], whole["sha256"], whole["content"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, "it is damaged"
    if version != FORMAT:
        return None, f"it has format {version!r}, this pcipt writes {FORMAT}"
    if hashlib.sha256(_canonical(content)).hexdigest() != digest:
        return None, "its checksum does not fit"
    return content, None
