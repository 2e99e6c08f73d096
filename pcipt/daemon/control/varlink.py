"""The interface org.varlink.service: it names the service, its interfaces, and their descriptions.

Source: varlink.org/Service, varlink.org/Interface-Definition; systemd sd-varlink.
"""

import os
from collections.abc import Callable, Mapping

from pcipt import __version__
from pcipt.daemon.control.protocol import (
    INTERFACE,
    SERVICE,
    Message,
    ParameterError,
    members_of,
    require_known,
)

URL = "https://xenproject.org/"

_SERVICE_DESCRIPTION = """\
# The Varlink service interface, which every service has.
interface org.varlink.service

# Tell who answers here, and which interfaces there are.
method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)

# Give the description of an interface.
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
error PermissionDenied ()
error ExpectedMore ()
"""


class NoSuchInterfaceError(Exception):
    """Raised when the service has no interface of this name; the text is the name."""


def own_description() -> str:
    """Return the description of the interface org.pcipt, read from the file beside this module.

    Raises: OSError if the file cannot be read.
    """
    with open(os.path.join(os.path.dirname(__file__), f"{INTERFACE}.varlink"), encoding="ascii") as file:
        return file.read()


def _members(given: object, allowed: tuple[str, ...], method: str) -> Message:
    """Return the parameters of a method after checking their names; None (JSON null) gives an empty dict.

    Raises: ParameterError if they are not an object, or if a name is not in `allowed`.
    """
    members = members_of(given)
    for key in members:
        require_known(key, allowed, method)
    return members


def _info(parameters: object) -> Message:
    """Return the reply to GetInfo. Raises ParameterError if there are parameters."""
    _members(parameters, (), "GetInfo")
    return {
        "vendor": "pcipt",
        "product": "pcipt",
        "version": __version__,
        "url": URL,
        "interfaces": [SERVICE, INTERFACE],
    }


def _interface(parameters: object) -> Message:
    """Return the reply to GetInterfaceDescription.

    Raises: ParameterError if the parameters are wrong; NoSuchInterfaceError if there is no such interface.
    """
    wanted = _members(parameters, ("interface",), "GetInterfaceDescription").get("interface")
    if not isinstance(wanted, str):
        raise ParameterError("interface", "interface must be a text")
    if wanted not in _DESCRIPTIONS:
        raise NoSuchInterfaceError(wanted)
    return {"description": _DESCRIPTIONS[wanted]()}


_DESCRIPTIONS: Mapping[str, Callable[[], str]] = {
    SERVICE: lambda: _SERVICE_DESCRIPTION,
    INTERFACE: own_description,
}

SERVICE_METHODS: Mapping[str, Callable[[object], Message]] = {
    "GetInfo": _info,
    "GetInterfaceDescription": _interface,
}
