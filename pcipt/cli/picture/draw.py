"""Draw a picture of the machine as SVG. Rows flow into columns, as in a newspaper.

All text is monospaced, so that its width is known, and is cut to the room it has: labels never overlap. Text
from devices is escaped; the document loads nothing.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape
from unicodedata import east_asian_width

from pcipt.cli.picture.style import BOX, CHARACTER, ROW, TITLE_FONT, VERDICTS, WIDEST, fill_of, style_sheet
from pcipt.cli.picture.values import FunctionRow, Holder, Picture
from pcipt.cli.text.terminal import folded

MARGIN, GUTTER, PAD = 20, 28, 4  # pixels
SHAPE = 1.4  # width of the page by its height
STEP, WIDEST_TREE = 16, 260  # pixels: for each level of the tree, and for all levels
ADDRESS, NAME, HELD, NUMBER, REGIONS, VERDICT = 13, 40, 14, 8, 8, 7  # characters
HEADING = "heading"

LEGEND = (
    ("box of an address:", tuple((fill_of(holder), holder.value) for holder in Holder)),
    ("box at the end:", tuple((fill_of(each), f"{each.value}: {about}") for each, about in VERDICTS.items())),
)

Line = FunctionRow | str | tuple[str, str]  # (HEADING, text) is a heading
Column = list[Line]


def draw(picture: Picture) -> str:
    """Return a complete SVG document of the picture."""
    functions = [row for block in picture.blocks for row in block.rows if isinstance(row, FunctionRow)]
    deepest = max((len(row.rails) for row in functions), default=1)
    step = min(STEP, WIDEST_TREE / deepest)
    tree = step * deepest
    width = tree + (ADDRESS + NAME + HELD + NUMBER + REGIONS + VERDICT) * CHARACTER + 12 * PAD
    columns = flow(picture, round(width / CHARACTER), width)
    page = 2 * MARGIN + len(columns) * width + (len(columns) - 1) * GUTTER
    top, head = _head(picture, page)
    height = top + ROW * max(map(len, columns), default=0) + MARGIN
    parts = [
        part
        for at, column in enumerate(columns)
        for part in _column(column, MARGIN + at * (width + GUTTER), top, step, tree)
    ]
    title = escape(picture.title)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xml:space="preserve"'
        f' viewBox="0 0 {page:.0f} {height}" width="{page:.0f}"'
        f' height="{height}" role="img" aria-label="{title}">'
    )
    paper = f'<rect class="page" width="{page:.0f}" height="{height}"/>'
    return "\n".join([opening, f"<style>{style_sheet()}</style>", paper, *head, *parts, "</svg>\n"])


def flow(picture: Picture, characters: int, width: float) -> list[Column]:
    """Return the rows of all blocks in columns that are `width` pixels wide, so that the page gets its SHAPE.

    Text is folded to `characters`. A heading is above each block, after an empty line, and again where a
    block goes on in the next column. No column ends with a heading.
    """
    blocks = [(block.heading, list(_folded(block.rows, characters))) for block in picture.blocks]
    total = sum(len(rows) + 2 for _, rows in blocks)
    count = max(1, round(math.sqrt(SHAPE * ROW * total / width)))
    longest = max(math.ceil(total / count), 3)
    columns: list[Column] = [[]]
    for heading, rows in blocks:
        if len(columns[-1]) + 3 > longest:
            columns.append([])
        columns[-1] += [*([""] if columns[-1] else []), (HEADING, heading)]
        for row in rows:
            if len(columns[-1]) >= longest:
                columns.append([(HEADING, f"{heading}, continued")])
            columns[-1].append(row)
    return columns


def _folded(rows: Sequence[FunctionRow | str], characters: int) -> Iterator[FunctionRow | str]:
    """Yield the rows; a line of text that is too long is yielded as several."""
    for row in rows:
        if isinstance(row, str):
            yield from (cut(line, characters) for line in folded(row, characters, 4))
        else:
            yield row


def _head(picture: Picture, page: float) -> tuple[int, list[str]]:
    """Return the height of what is above the columns, and its SVG: title, lines about the host, legend."""
    room = page - 2 * MARGIN
    at = MARGIN + TITLE_FONT
    parts = [_text(cut(picture.title, int(room / (TITLE_FONT * WIDEST))), MARGIN, at, "title head")]
    at += 8
    for line in picture.host:
        for each in folded(line, int(room / CHARACTER), 4):
            at += ROW - 3
            parts.append(_text(cut(each, int(room / CHARACTER)), MARGIN, at))
    at += 8
    for about, words in LEGEND:
        x = float(MARGIN)
        for fill, word in (("", about), *words):
            taken = len(word) * CHARACTER + (BOX + PAD if fill else 0)
            if x > MARGIN and x + taken > page - MARGIN:
                x, at = float(MARGIN), at + ROW
            parts += [_box(fill, x, at, BOX)] if fill else []
            parts.append(_text(word, x + (BOX + PAD if fill else 0), at + 12, "faint" if fill else ""))
            x += taken + BOX
        at += ROW
    return at + ROW // 2, parts


def _column(column: Column, x: float, top: int, step: float, tree: float) -> Iterator[str]:
    """Yield the SVG of the rows of one column, whose left edge is at `x`.

    `step` and `tree` are the widths of a level and of all levels of the tree.
    """
    for at, row in enumerate(column):
        y = top + at * ROW
        if isinstance(row, FunctionRow):
            yield _function(row, x, y, step, tree)
        elif isinstance(row, tuple):
            yield _text(row[1], x, y + 14, "head")
        elif row:
            yield _text(row, x, y + 14)


def _function(row: FunctionRow, x: float, y: int, step: float, tree: float) -> str:
    """Return the SVG of one function: its lines in the tree, then its boxes and words from left to right."""
    left = x + step * len(row.rails)
    address = ADDRESS * CHARACTER + 2 * PAD
    held = x + tree + address + NAME * CHARACTER + 2 * PAD
    number = held + HELD * CHARACTER + 3 * PAD
    regions = number + NUMBER * CHARACTER
    verdict = regions + REGIONS * CHARACTER
    name = left + address + PAD
    fill = fill_of(row.holder)
    parts = [
        f"<g><title>{escape(row.more)}</title>",
        f'<path d="{_lines(row.rails, x, y, step)}"/>',
        _box(fill, left, y + 2, address),
        _text(str(row.sbdf), left + PAD, y + 14),
        _text(cut(row.about, int((held - PAD - name) / CHARACTER)), name, y + 14),
    ]
    if row.held:
        parts.append(_text(cut(row.held, HELD), held + PAD, y + 14, "faint"))
    if row.number is not None:
        parts.append(_text(cut(f"set {row.number}", NUMBER - 1), number, y + 14))
    if row.regions:
        parts.append(_text(cut(" ".join(f"R{each}" for each in row.regions), REGIONS - 1), regions, y + 14))
    if row.verdict is not None:
        parts.append(_box(fill_of(row.verdict), verdict, y + 2, VERDICT * CHARACTER + 2 * PAD))
        parts.append(_text(row.verdict.value, verdict + PAD, y + 14))
    return "".join([*parts, "</g>"])


def _lines(rails: Sequence[bool], x: float, y: int, step: float) -> str:
    """Return the path of the lines that lead to a row from the functions above it and to those below it."""
    half = step / 2
    passing = "".join(
        f"M{x + step * level + half:.1f} {y}v{ROW}" for level, goes_on in enumerate(rails[:-1]) if goes_on
    )
    own = x + step * (len(rails) - 1) + half
    return f"{passing}M{own:.1f} {y}v{ROW if rails[-1] else ROW // 2}M{own:.1f} {y + ROW // 2}h{half:.1f}"


def _box(fill: str, x: float, y: float, width: float) -> str:
    return f'<rect class="{fill}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="{BOX}" rx="3"/>'


def _text(text: str, x: float, y: float, kind: str = "") -> str:
    shown = f' class="{kind}"' if kind else ""
    return "" if not text else f'<text{shown} x="{x:.1f}" y="{y}">{escape(text)}</text>'


def cut(text: str, room: int) -> str:
    """Return the text cut to `room` characters, with an ellipsis if something is cut. A wide character (of
    Chinese, for example) counts as two.
    """
    if sum(map(_width, text)) <= room:
        return text
    kept, taken = "", 1
    for character in text:
        taken += _width(character)
        if taken > room:
            break
        kept += character
    return f"{kept}…"


def _width(character: str) -> int:
    return 2 if east_asian_width(character) in "WF" else 1
