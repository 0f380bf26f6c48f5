"""A stacked bar chart as SVG: the floor, and what comes over it."""

from __future__ import annotations

from collections.abc import Sequence

_WIDTH, _BAR, _GAP, _LEFT, _TOP = 720, 22, 10, 70, 40


def bars(rows: Sequence[tuple[str, float, float]]) -> str:
    """Return the chart of (label, floor in ms, over the floor in ms)."""
    longest = max(floor + over for _, floor, over in rows)
    scale = (_WIDTH - _LEFT - 90) / longest
    height = _TOP + len(rows) * (_BAR + _GAP)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            'font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="20">Delegates (grey) and metaplugin beside them (blue), ms</text>',
    ]
    for position, (label, floor, over) in enumerate(rows):
        y = _TOP + position * (_BAR + _GAP)
        middle = y + _BAR * 0.7
        end = _LEFT + (floor + over) * scale
        parts += [
            f'<text x="{_LEFT - 8}" y="{middle:.0f}" text-anchor="end">{label}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{floor * scale:.1f}" height="{_BAR}" fill="#bbb"/>',
            (
                f'<rect x="{_LEFT + floor * scale:.1f}" y="{y}" '
                f'width="{max(0.0, over * scale):.1f}" height="{_BAR}" fill="#2a6fbb"/>'
            ),
            f'<text x="{end + 6:.0f}" y="{middle:.0f}">{floor:.0f} + {over:.1f}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"
