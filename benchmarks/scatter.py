"""The benchmarks' figure, written by hand."""

import html
import math
from collections.abc import Sequence


def scatter_svg(points: Sequence[tuple[str, float, float]], *, x: str, y: str) -> str:
    """Named points on two logarithmic axes, as an SVG of its own."""
    width, height, margin = 640, 400, 60
    bounds = [
        (math.floor(math.log10(min(values))), math.ceil(math.log10(max(values))))
        for values in ([point[1] for point in points], [point[2] for point in points])
    ]

    def place(value: float, axis: int) -> float:
        low, high = bounds[axis]
        share = (math.log10(value) - low) / max(high - low, 1)
        return margin + share * (width - 2 * margin) if axis == 0 else height - margin - share * (height - 2 * margin)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for axis in (0, 1):
        for power in range(bounds[axis][0], bounds[axis][1] + 1):
            at = place(10.0**power, axis)
            label = f"{10.0**power:g}"
            if axis == 0:
                lines.append(f'<line x1="{at:.0f}" x2="{at:.0f}" y1="{margin}" y2="{height - margin}" stroke="#ddd"/>')
                lines.append(f'<text x="{at:.0f}" y="{height - margin + 18}" text-anchor="middle">{label}</text>')
            else:
                lines.append(f'<line x1="{margin}" x2="{width - margin}" y1="{at:.0f}" y2="{at:.0f}" stroke="#ddd"/>')
                lines.append(f'<text x="{margin - 8}" y="{at + 4:.0f}" text-anchor="end">{label}</text>')
    for name, value_x, value_y in points:
        at_x, at_y = place(value_x, 0), place(value_y, 1)
        lines.append(f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="5" fill="#1f77b4"/>')
        anchor, shift = ("end", -9) if at_x > width / 2 else ("start", 9)
        lines.append(
            f'<text x="{at_x + shift:.1f}" y="{at_y - 8:.1f}" text-anchor="{anchor}">{html.escape(name)}</text>'
        )
    lines.append(f'<text x="{width / 2}" y="{height - 14}" text-anchor="middle">{html.escape(x)}</text>')
    lines.append(f'<text x="16" y="{margin - 20}">{html.escape(y)}</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"
