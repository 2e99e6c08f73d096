"""The plot of growth: milliseconds of the processor by number of functions, both logarithmic, as SVG.

Colours follow the reader's setting for light or dark.
"""

import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 170, 20, 50
STYLE = """
  svg { --ink: #24292f; --faint: #d0d7de; --page: #ffffff; --a: #0550ae; --b: #8250df; --c: #116329; }
  @media (prefers-color-scheme: dark) {
    svg { --ink: #e6edf3; --faint: #30363d; --page: #0d1117; --a: #79c0ff; --b: #d2a8ff; --c: #7ee787; }
  }
  text { font: 12px sans-serif; fill: var(--ink); }
  .grid { stroke: var(--faint); }
  .line { fill: none; stroke-width: 2; }
  .peer { stroke-dasharray: 5 4; }
"""
COLOURS = ("var(--a)", "var(--b)", "var(--c)")


def svg(sizes: Sequence[int], series: Mapping[str, Sequence[float]]) -> str:
    """Return the plot. `series` maps a name to its values at `sizes`; lspci's lines are dashed.

    The n-th command of pcipt and the n-th of lspci have the same colour.
    """
    every = [value for values in series.values() for value in values]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))

    def x(size: int) -> float:
        share = math.log(size / sizes[0]) / math.log(sizes[-1] / sizes[0])
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(value) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        "<title>time of the processor by number of functions</title>",
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="var(--page)"/>',
    ]
    for power in range(low, high + 1):
        at = y(10**power)
        parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10**power:,} ms</text>')
    for size in sizes:
        parts.append(f'<path class="grid" d="M{x(size):.1f} {TOP}V{HEIGHT - BOTTOM}"/>')
        parts.append(
            f'<text x="{x(size):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{size:,}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">functions, flat</text>')
    seen = {False: 0, True: 0}
    places = _apart({name: y(values[-1]) for name, values in series.items()})
    for name, values in series.items():
        peer = name.startswith("lspci")
        colour = COLOURS[seen[peer] % len(COLOURS)]
        seen[peer] += 1
        points = " ".join(f"{x(size):.1f},{y(value):.1f}" for size, value in zip(sizes, values, strict=True))
        kind = "line peer" if peer else "line"
        parts.append(f'<polyline class="{kind}" stroke="{colour}" points="{points}"/>')
        parts.append(
            f'<text x="{WIDTH - RIGHT + 8}" y="{places[name] + 4:.1f}" style="fill:{colour}">{name}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


def _apart(places: Mapping[str, float]) -> dict[str, float]:
    """Return the heights of the names so that no two are closer than a line."""
    found: dict[str, float] = {}
    last = -math.inf
    for name, place in sorted(places.items(), key=lambda each: each[1]):
        found[name] = last = max(place, last + 15)
    return found
