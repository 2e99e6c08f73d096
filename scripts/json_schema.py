"""Write docs/json-schema.json, a JSON Schema of every --json output, from the tables of docs/json.md.

The definition of an output is named like its heading, for example "pcipt status --json". Keys that the
document does not have are allowed, because keys are added. With --check nothing is written: exit code 1 if
the file is not up to date.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs/json-schema.json"
HEADING = re.compile(r"^### (.+)$", re.MULTILINE)
#  an object that takes over the keys of others, as its text says
ALSO = {"told action": ["action"], "event action": ["action"], "pcipt host --json": ["host"]}
#  an object whose further keys depend on its kind: those of all objects that begin with the words
KINDS = {"event": ("event ", "change "), "change": ("change ",), "event change": ("change ",)}
PLAIN: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "number": {"type": "integer"},
    "boolean": {"type": "boolean"},
    "object": {"type": "object"},
    "null": {"type": "null"},
    "address": {"type": "string", "pattern": "^0x[0-9a-f]+$"},
    "sbdf": {"type": "string", "pattern": r"^[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$"},
    "path": {"type": "string", "pattern": "^[0-9a-f_.-]+$"},
    "time": {"type": "string", "pattern": r"^[-0-9]{10}T[:0-9]{8}\.[0-9]{3}Z$"},
}

Tables = dict[str, dict[str, str]]


def read_tables(text: str) -> Tables:
    """Return the tables of the document: object, key, type. "event X, Y" is the title of two objects."""
    pieces = HEADING.split(text)
    tables: Tables = {}
    for title, body in zip(pieces[1::2], pieces[2::2], strict=True):
        rows = re.findall(r"^\| (`.+?`) \| (.+?) \|", body, re.MULTILINE)
        keys = {key: kind for names, kind in rows for key in re.findall(r"`([\w.-]+)`", names)}
        first, *more = title.split(", ")
        for name in (first, *(f"change {kind}" for kind in more)):
            tables.setdefault(name, {}).update(keys)
    return tables


def schema_of(tables: Tables) -> dict[str, Any]:
    """Return the schema: one definition for each object of the document."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What pcipt prints with --json (docs/json.md)",
        "$defs": {name: _object(name, tables) for name in sorted(tables)},
    }


def _object(name: str, tables: Tables) -> dict[str, Any]:
    """Return the schema of an object. A key whose type differs by the kind of the object has all types."""
    kinds: dict[str, list[str]] = {}
    for home in (name, *ALSO.get(name, ()), *_variants(name, tables)):
        for key, kind in tables.get(home, {}).items():
            kinds[key] = list(dict.fromkeys([*kinds.get(key, []), *kind.split(" or ")]))
    own = {key: list(dict.fromkeys(kind)) for key, kind in kinds.items()}
    return {"type": "object", "properties": {key: _any_of(kind, tables) for key, kind in own.items()}}


def _variants(name: str, tables: Tables) -> list[str]:
    found = [other for other in tables if other.startswith(KINDS.get(name, ())) and other != name]
    return [*found, *(also for other in found for also in ALSO.get(other, ()))]


def _any_of(kinds: list[str], tables: Tables) -> dict[str, Any]:
    found = [_type(kind, tables) for kind in kinds]
    return found[0] if len(found) == 1 else {"anyOf": found}


def _type(kind: str, tables: Tables) -> dict[str, Any]:
    """Return the schema of one type of the document.

    Raises: KeyError if the document has no such type.
    """
    if kind.startswith("list of "):
        return {"type": "array", "items": _type(kind.removeprefix("list of "), tables)}
    if kind in PLAIN:
        return PLAIN[kind]
    if kind not in tables:
        raise KeyError(kind)
    return {"$ref": f"#/$defs/{kind.replace(' ', '%20')}"}


def main() -> int:
    text = json.dumps(schema_of(read_tables((ROOT / "docs/json.md").read_text())), indent=1) + "\n"
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.read_text() == text else 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
