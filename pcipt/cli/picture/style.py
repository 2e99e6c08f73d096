"""Colours and sizes of a picture of the machine, and its style sheet for light and dark displays."""

from pcipt.cli.picture.values import Holder
from pcipt.firmware.passthrough.reasons import Verdict

FONT = 11  # pixels
WIDEST = 0.62  # of the font's size: what a character of a monospaced font takes at most
CHARACTER = FONT * WIDEST
TITLE_FONT = 15
ROW, BOX = 20, 16  # pixels: the height of a row, and of the boxes in it

# light, dark: paper, text, faint text, lines
PAPER, TEXT, FAINT, LINE = (
    ("#ffffff", "#121212"),
    ("#1a1a1a", "#eeeeee"),
    ("#555555", "#b5b5b5"),
    ("#8a8a8a", "#777777"),
)
FILLS = {
    #                light      dark
    "host": ("#e8e8e8", "#3a3a3a"),
    "dom0": ("#cfe2f3", "#1f4468"),
    "idle": ("#ffffff", "#121212"),
    "aside": ("#fde4c0", "#5e4012"),
    "guest": ("#ead9f5", "#4f3468"),
    "nobody": ("#f4cfcf", "#6a2b2b"),
    "ok": ("#d5ead0", "#2a5326"),
    "warn": ("#fde4c0", "#5e4012"),
    "unknown": ("#e8e8e8", "#3a3a3a"),
    "refuse": ("#f4cfcf", "#6a2b2b"),
}
VERDICTS = {
    Verdict.OK: "can be passed through",
    Verdict.WARN: "can be, with a warning",
    Verdict.UNKNOWN: "not known",
    Verdict.REFUSE: "cannot be",
}


def fill_of(what: Holder | Verdict) -> str:
    """Return the name of the fill of a holder or a verdict in FILLS."""
    return what.name.lower()


def style_sheet() -> str:
    """Return the CSS: the colours for light displays, then those for dark ones."""
    fonts = "ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace"
    general = (
        f"text{{font:{FONT}px {fonts}}}"
        f".title{{font-size:{TITLE_FONT}px}}.head{{font-weight:bold}}"
        "rect{stroke-width:.6}path{fill:none;stroke-width:1}.page{stroke:none}"
    )
    return f"{general}{_colours(0)}@media (prefers-color-scheme:dark){{{_colours(1)}}}"


def _colours(at: int) -> str:
    """Return the rules for one kind of display: 0 light, 1 dark."""
    fills = "".join(f".{name}{{fill:{colours[at]}}}" for name, colours in FILLS.items())
    return (
        f"text{{fill:{TEXT[at]}}}.faint{{fill:{FAINT[at]}}}rect,path{{stroke:{LINE[at]}}}"
        f".page{{fill:{PAPER[at]};stroke:none}}{fills}"
    )
