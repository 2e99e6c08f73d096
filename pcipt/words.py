"""Write numbers for people: used in findings and by the command line. Imports no other module."""

SIZE_UNITS = ("", "K", "M", "G", "T", "P", "E")


def size_text(size: int) -> str:
    """Return a size in bytes with the largest unit that divides it, as lspci does: 16K, 8G, 1536, 0."""
    unit = 0
    while size and size % 1024 == 0 and unit < len(SIZE_UNITS) - 1:
        size //= 1024
        unit += 1
    return f"{size}{SIZE_UNITS[unit]}"
