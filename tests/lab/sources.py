"""Where the image's packages come from: the host's own Debian mirrors if it has them, else Debian's.

Both spellings of apt are read, `.sources` (deb822) and `.list` (one line each). Only entries that are
Debian's own suites count: a host's third-party repositories have no business in dom0.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
POCKETS = ("", "-updates", "-security")


@dataclass(frozen=True)
class Source:
    """One mirror and suite."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = KEYRING

    def line(self) -> str:
        """Render as apt's one-line form."""
        return f"deb [signed-by={self.signed_by}] {self.uri} {self.suite} {' '.join(self.components)}"


def parse_deb822(text: str) -> list[Source]:
    """Decode a `.sources` file; disabled stanzas and keys written inline are left out."""
    found = []
    for stanza in text.split("\n\n"):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#") or not line.strip():
                continue
            if line[0] in " \t":
                fields[key] = f"{fields.get(key, '')} {line.strip()}"
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().lower()
                fields[key] = value.strip()
        disabled = fields.get("enabled", "yes").lower() in ("no", "false")
        if disabled or "deb" not in fields.get("types", "").split():
            continue
        signed_by = fields.get("signed-by", KEYRING)
        if not signed_by.startswith("/"):
            signed_by = KEYRING
        components = tuple(fields.get("components", "").split())
        found += [
            Source(uri, suite, components, signed_by)
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def parse_list(text: str) -> list[Source]:
    """Decode a `sources.list` file."""
    found = []
    for raw in text.splitlines():
        line = raw.split("#", 1)[0].strip()
        if not line.startswith("deb "):
            continue
        line = line[4:].strip()
        signed_by = KEYRING
        if line.startswith("["):
            options, _, line = line[1:].partition("]")
            for option in options.split():
                name, _, value = option.partition("=")
                if name == "signed-by" and value.startswith("/"):
                    signed_by = value
        words = line.split()
        if len(words) >= 3:
            found.append(Source(words[0], words[1], tuple(words[2:]), signed_by))
    return found


def read_sources(suite: str, apt: Path = Path("/etc/apt")) -> list[Source]:
    """Choose the host's mirrors of Debian `suite`; Debian's own where the host has none."""
    found = []
    for path in [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))]:
        if path.suffix == ".sources":
            found += parse_deb822(path.read_text(encoding="utf-8"))
        elif path.suffix == ".list" and path.is_file():
            found += parse_list(path.read_text(encoding="utf-8"))
    wanted = [suite + pocket for pocket in POCKETS]
    ours = [
        Source(source.uri, source.suite, ("main",), source.signed_by)
        for source in found
        if source.suite in wanted
        and "main" in source.components
        and "debian" in source.uri
        and Path(source.signed_by).exists()
    ]
    if not any(source.suite == suite for source in ours):
        ours = [
            Source("http://deb.debian.org/debian", suite, ("main",)),
            Source("http://deb.debian.org/debian", f"{suite}-updates", ("main",)),
            Source("http://deb.debian.org/debian-security", f"{suite}-security", ("main",)),
        ]
    return list(dict.fromkeys(ours))


def read_apt_options() -> list[str]:
    """Ask the host's apt for its proxies, which the image's apt would not see otherwise."""
    options = []
    for name in ("Acquire::http::Proxy", "Acquire::https::Proxy"):
        command = ["apt-config", "shell", "VALUE", name]
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        value = asked.stdout.strip().removeprefix("VALUE=").strip("'")
        if value and value != "DIRECT":
            options.append(f'{name} "{value}"')
    return options
