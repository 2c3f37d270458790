"""The README's bar chart, as a small SVG that reads on a light and a dark page.

The labels' column has room for the longest label in the widest of the common system fonts: an SVG cannot
measure its text.
"""

from collections.abc import Mapping
from html import escape

_WIDTH, _LABEL, _BAR, _GAP, _TOP = 860, 400, 26, 12, 46
_ROOM = _WIDTH - _LABEL - 90

_STYLE = """<style>
text { font: 14px system-ui, sans-serif; fill: #57606a }
.title { font-weight: 600 }
.bar { fill: #8c959f } .ours { fill: #1f6feb }
@media (prefers-color-scheme: dark) { text { fill: #c9d1d9 } .ours { fill: #58a6ff } }
</style>"""


def draw(title: str, bars: Mapping[str, float], *, ours: str) -> str:
    """A horizontal bar for each value, in the order given; `ours` is the one that stands out."""
    longest = max(bars.values())
    height = _TOP + len(bars) * (_BAR + _GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        f"<title>{escape(title)}</title>",
        _STYLE,
        f'<text class="title" x="0" y="20">{escape(title)}</text>',
    ]
    for number, (name, value) in enumerate(bars.items()):
        y = _TOP + number * (_BAR + _GAP)
        width = max(1.0, value / longest * _ROOM)
        look = "bar ours" if name == ours else "bar"
        middle = y + _BAR - 8
        parts += [
            f'<text x="{_LABEL - 12}" y="{middle}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{look}" x="{_LABEL}" y="{y}" width="{width:.0f}" height="{_BAR}" rx="3"/>',
            f'<text x="{_LABEL + width + 8:.0f}" y="{middle}">{value:,.0f}</text>',
        ]
    return "\n".join([*parts, "</svg>\n"])
