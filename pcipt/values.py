"""Values as attrs makes them, for all that the command line loads: the same words, made when first used.

`import attrs` takes as long as starting Python, and each of its classes 0.7 ms, because it compiles the
methods of each class at once. In `pcipt.light`, `__init__` is compiled after a class has made some objects,
and the other methods need no compiling. Only what pcipt uses of attrs is there, and it means the same: a type
checker sees attrs itself, and functions of attrs, such as `attrs.fields`, take these classes too.
Why: docs/decisions/0023-values-made-when-used.md.
"""

from pcipt.hints import TYPE_CHECKING

if TYPE_CHECKING:
    from attrs import Factory, define, evolve, field, fields, frozen
else:
    from pcipt.light import Factory, define, evolve, field, fields, frozen

__all__ = ["Factory", "define", "evolve", "field", "fields", "frozen"]
