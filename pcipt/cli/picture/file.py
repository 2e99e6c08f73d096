"""Write a drawing into the file that the user names."""

from pcipt.errors import InputError
from pcipt.host.tree import reason


def write_drawing(path: str, text: str) -> None:
    """Write the text of a drawing into a file. Raises: InputError if it cannot be written."""
    try:
        with open(path, "w", encoding="utf-8") as out:
            out.write(text)
    except OSError as error:
        raise InputError(path, reason(error)) from error
