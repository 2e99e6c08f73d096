"""The bytes of memory that a BAR names and decodes. Pure."""

from pcipt.pci import Bar, BarKind, Range

ADDRESS_BITS = 52  # no x86 has more physical address bits


def decoding_range(bar: Bar) -> Range | None:
    """Return the bytes of memory that a BAR or ROM decodes now.

    None is returned if it does not decode, if it is unknown whether it decodes, or if `assigned_range`
    returns None.
    """
    if bar.kind is BarKind.IO or not bar.decoding:
        return None
    return assigned_range(bar)


def assigned_range(bar: Bar) -> Range | None:
    """Return the bytes of memory that the register of a BAR or ROM names, whether or not it decodes.

    None is returned for an I/O BAR, for address 0, if the size is unknown, or if the range reaches above 52
    bits.
    """
    span = bar.range
    if bar.kind is BarKind.IO or not bar.address or span is None or span.last >> ADDRESS_BITS:
        return None
    return span
