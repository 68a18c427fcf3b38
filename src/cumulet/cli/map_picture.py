"""The map as a picture: a frame for each node, a box for each service, a red edge where something is wrong.

Its strokes (``box``, ``text``, ``STYLE``) are those of the picture in the documentation, too.
"""

from collections.abc import Iterator, Sequence
from html import escape

from cumulet.cli.node_map import UP, Line, NodeMap

COLORS = {
    "controller": "#dbe9f6",
    "network": "#dff0d8",
    "compute": "#fbe8cf",
    "storage": "#efe0f0",
    "part": "#ececec",
}
STYLE = (
    "text { font: 13px sans-serif; fill: #1b1b1b } .small { font-size: 11px; fill: #444 } "
    ".head { font-size: 14px; font-weight: bold } .end { text-anchor: end } "
    ".box { stroke: #555 } .frame { fill: none; stroke: #999 } "
    ".line { stroke: #555; stroke-width: 1.4; fill: none; marker-end: url(#tip) }"
)
WRONG = " .wrong { stroke: #c0392b; stroke-width: 2.5 }"
COLUMNS, WIDTH, GAP, ROW = 4, 300, 20, 36
HEAD = 56


def draw(nodes: Sequence[NodeMap]) -> str:
    """All nodes, some side by side; what is wrong with a service is below its name."""
    columns = max(1, min(COLUMNS, len(nodes)))
    heights = [HEAD + sum(map(_height, node.services)) + 6 for node in nodes]
    lines: list[str] = []
    y = GAP
    for start in range(0, len(nodes), columns):
        row = nodes[start : start + columns]
        tall = max(heights[start : start + columns])
        for number, node in enumerate(row):
            lines += _node(node, GAP + number * (WIDTH + GAP), y, tall)
        y += tall + GAP
    width = GAP + columns * (WIDTH + GAP)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y}" width="{width}" height="{y}" '
            'role="img" aria-label="What runs where">',
            f"<style>{STYLE}{WRONG}</style>",
            f'<rect width="{width}" height="{y}" fill="#fff"/>',
            *lines,
            "</svg>\n",
        ]
    )


def _node(node: NodeMap, x: int, y: int, height: int) -> Iterator[str]:
    yield f'<rect class="frame" x="{x}" y="{y}" width="{WIDTH}" height="{height}" rx="8"/>'
    yield text(x + 12, y + 24, node.name, "head")
    yield text(x + WIDTH - 12, y + 24, node.address, "small end")
    yield text(x + 12, y + 42, ", ".join(node.roles), "small")
    top = y + HEAD
    for one in node.services:
        words = [one.name] if one.state == UP else [one.name, _shortened(f"{one.state}: {one.about}")]
        yield from box(x + 10, top, WIDTH - 20, _height(one) - 8, one.role, *words, wrong=one.state != UP)
        top += _height(one)


def _height(one: Line) -> int:
    return ROW if one.state == UP else ROW + 16


def _shortened(words: str) -> str:
    return words if len(words) <= 46 else words[:45] + "…"


def box(x: int, y: int, width: int, height: int, kind: str, *words: str, wrong: bool = False) -> list[str]:
    """A rectangle of the kind's colour with its lines of text, the first of them larger."""
    first = y + height / 2 + 4.5 - 8 * (len(words) - 1)
    fill, style = COLORS.get(kind, "#fff"), "box wrong" if wrong else "box"
    return [
        f'<rect class="{style}" x="{x}" y="{y}" width="{width}" height="{height}" rx="5" fill="{fill}"/>',
        *(text(x + 10, first + 16 * number, word, "small" if number else "") for number, word in enumerate(words)),
    ]


def text(x: float, y: float, words: str, kind: str = "") -> str:
    return (
        f'<text x="{x:g}" y="{y:g}"{f" class={kind!r}" if kind else ""} xml:space="preserve">{escape(words)}</text>'
    )
