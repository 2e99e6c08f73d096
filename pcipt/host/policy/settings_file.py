"""What the settings file says about the policy: tables `[[passthrough]]`, and the ports that are policed.

The service reads its other keys (daemon/settings.py), and refuses a wrong one at its start.
"""

import os
import tomllib

from pcipt.errors import AddressError, InputError
from pcipt.hints import Any
from pcipt.host.regular_file import read_regular
from pcipt.pci.address import XEN_SEGMENT_LIMIT, PciPath, parse_path
from pcipt.pci.policy.entries import TABLE, Entry, distinct, entry_from_table

SETTINGS = "pcipt.toml"  # beside passthrough.d
SIZE_LIMIT = 64 * 1024


def read_document(path: str) -> dict[str, Any]:
    """Return the document in a TOML file; an empty one without the file.

    Raises: InputError if the file cannot be used; PermissionError if the user may not read it.
    """
    try:
        data = read_regular(path, SIZE_LIMIT)
    except FileNotFoundError:
        return {}
    except PermissionError:
        raise
    except OSError as error:
        raise InputError(path, error.strerror or str(error)) from error
    try:
        return document_from(data.decode(), path)
    except UnicodeDecodeError as error:
        raise InputError(path, str(error)) from error


def document_from(text: str, path: str) -> dict[str, Any]:
    """Return the document in the text of a TOML file. Raises: InputError about `path` if it is none."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(path, str(error)) from error


def entries_in(document: dict[str, Any], path: str) -> list[Entry]:
    """Return the entries of the policy in a document. `path` is its file.

    Raises: InputError for an entry that cannot be used.
    """
    tables = document.get(TABLE, [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise InputError(path, f"{TABLE} is no list of tables; write [[{TABLE}]]")
    return list(distinct(entry_from_table(table, path) for table in tables))


def guarded_in(document: dict[str, Any], path: str) -> tuple[PciPath, ...]:
    """Return the ports that xen-pciback is to guard: those of hotplug.below, unless pcipt only tells of them.

    Raises: InputError if they cannot be used.
    """
    hotplug, switches = document.get("hotplug", {}), document.get("actions", {})
    if not isinstance(hotplug, dict) or not isinstance(switches, dict):
        raise InputError(path, "hotplug and actions are no tables; write [hotplug] and [actions]")
    below = hotplug.get("below", [])
    if not isinstance(below, list) or not all(isinstance(text, str) for text in below):
        raise InputError(path, "hotplug.below is no list of PCI paths")
    try:
        ports = tuple(dict.fromkeys(map(parse_path, below)))
    except AddressError as error:
        raise InputError(path, f"hotplug.below: {error}") from error
    if any(port.segment > XEN_SEGMENT_LIMIT for port in ports):
        raise InputError(path, "hotplug.below: a segment is above ffff: Xen cannot name it (VMD)")
    tells = (
        document.get("mode") == "observe"
        or hotplug.get("action") == "tell"
        or switches.get("guard-port") is False
    )
    return () if tells else ports


def settings_beside(directory: str) -> str:
    """Return the path of the settings file of a directory of the policy."""
    return os.path.join(directory, SETTINGS)
