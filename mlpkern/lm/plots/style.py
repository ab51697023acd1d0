"""The style of all pictures: colours, sizes, a plain frame, fonts for any alphabet, PNG."""

from __future__ import annotations

import io
import os
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlpkern.lm.errors import ConfigError, MissingPackageError
from mlpkern.lm.words.symbols import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

# Okabe and Ito, "Color universal design" (2008), without its yellow, too faint for lines.
PALETTE = {
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "green": "#009E73",
    "purple": "#CC79A7",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "black": "#000000",
    "grey": "#767676",
}
# In the order of use: all colours with solid lines, then dashed, dash-dotted, dotted.
LINES = [
    (PALETTE[name], dash)
    for dash in ("-", "--", "-.", ":")
    for name in ("blue", "vermillion", "green", "purple", "orange", "sky", "black")
]
GRID = "#dddddd"
TITLE_SIZE, LABEL_SIZE, TICK_SIZE = 11, 9.5, 8.5
LETTER_WIDTH = 0.62  # of a letter on average, in font sizes
DPI = 150


def require_matplotlib() -> None:
    """MissingPackageError without matplotlib, so that a command fails before it works.

    ConfigError if matplotlib refuses the environment variable MPLBACKEND, although no picture
    needs it.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingPackageError.of("plots need", "matplotlib", "plots", error) from None
    except ValueError as error:
        said = " ".join(str(error).split())
        if named := os.environ.get("MPLBACKEND"):
            said = f"MPLBACKEND is {named!r}; unset it or name one that exists: {said}"
        raise ConfigError(f"plots need matplotlib, which refuses its settings: {said}") from None


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of ``width`` by ``height`` inches that needs no display."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def styled(
    axes: Axes, *, title: str, xlabel: str, ylabel: str, grid: bool = True, larger: float = 1.0
) -> None:
    """Titles and the plain frame; ``larger`` multiplies the size of the titles."""
    axes.set_title(title, fontsize=TITLE_SIZE * larger, loc="left", pad=10)
    axes.set_xlabel(xlabel, fontsize=LABEL_SIZE * larger)
    axes.set_ylabel(ylabel, fontsize=LABEL_SIZE * larger)
    axes.tick_params(labelsize=TICK_SIZE)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if grid:
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)


def titled(figure: Figure, title: str, *, larger: float = 1.0) -> None:
    """A line above all axes, smaller where it is long, none where it is empty; ``larger``: see
    `styled`."""
    if title:
        room = 72 * figure.get_figwidth() / len(title)  # points for each letter
        size = min(TITLE_SIZE * larger, room / LETTER_WIDTH)
        figure.suptitle(plain(title), fontsize=size, x=0.01, ha="left")


def plain(text: str) -> str:
    """A text that matplotlib shows unchanged: without mathematics, not hidden by an underscore."""
    return ("\u200a" if text.startswith("_") else "") + text.replace("$", r"\$")


def below(figure: Figure, columns: int = 4) -> None:
    """One legend for all axes, below them."""
    handles, labels = [], []
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            if label not in labels:
                handles.append(handle)
                labels.append(label)
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, frameon=False,
                  fontsize=LABEL_SIZE)  # fmt: skip


def shares_colormap() -> Colormap:
    """White, blue, nearly black; lightness falls steadily, so it works in grey too."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "shares", ["#ffffff", "#c6e2f2", PALETTE["sky"], PALETTE["blue"], "#001f33"]
    )


def symbol_labels(symbols: Sequence[str]) -> tuple[list[str], list[str]]:
    """Labels for ``symbols``, and the font families that can draw them.

    A symbol in no installed font becomes its code point. ``$`` is escaped, as it would begin
    mathematics.
    """
    from matplotlib import font_manager
    from matplotlib.ft2font import FT2Font

    open_fonts = [FT2Font(font_manager.findfont(font_manager.FontProperties()))]
    families = [open_fonts[0].family_name]

    def covers(font: FT2Font, text: str) -> bool:
        return all(font.get_char_index(ord(c)) for c in text)

    def found(text: str) -> bool:
        """Whether a font has ``text``; searches all installed fonts if necessary."""
        if any(covers(font, text) for font in open_fonts):
            return True
        for entry in font_manager.fontManager.ttflist:
            if entry.style != "normal" or entry.name in families:
                continue
            try:
                font = FT2Font(entry.fname)
            except (OSError, RuntimeError):
                continue
            if covers(font, text):
                families.append(entry.name)
                open_fonts.append(font)
                return True
        return False

    labels = []
    for symbol in symbols:
        label = unicodedata.normalize("NFC", shown(symbol))
        if not found(label):
            label = " ".join(f"U+{ord(c):04X}" for c in symbol)
        labels.append(label.replace("$", r"\$"))
    return labels, families


def png(figure: Figure) -> bytes:
    """The bytes of a PNG file."""
    figure.draw_without_rendering()  # long tick labels need a second pass of the layout
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
