"""A chart as SVG: one bar for each variant, its median, and a line from its least to its largest value.

It is written by hand, so it has no dependencies, and it is as readable on a dark page as on a light one.
"""

from html import escape
from statistics import median

from tests.benchmarks.measurement import Bar, Chart

WIDTH, LABELS, VALUES = 760, 260, 90
TOP, ROW, THICK = 40, 30, 16

HEAD = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" \
font-family="system-ui, sans-serif" font-size="13" role="img">
<style>
text {{ fill: #24292f }} .bar {{ fill: #7a9cc6 }} .ours {{ fill: #d1495b }} line {{ stroke: #24292f }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #e6edf3 }} line {{ stroke: #e6edf3 }} }}
</style>
<title>{title}</title>
<text x="0" y="18" font-weight="600">{title}</text>
"""


def svg(chart: Chart) -> str:
    """Returns the chart as the text of a file."""
    longest = max(max(bar.values) for bar in chart.bars) or 1.0
    height = TOP + ROW * len(chart.bars)
    rows = [_row(bar, TOP + ROW * place, longest) for place, bar in enumerate(chart.bars)]
    return HEAD.format(width=WIDTH, height=height, title=escape(chart.title)) + "".join(rows) + "</svg>\n"


def _row(bar: Bar, y: int, longest: float) -> str:
    def x(value: float) -> float:
        return round(LABELS + (WIDTH - LABELS - VALUES) * value / longest, 1)

    middle = median(bar.values)
    kind = "bar ours" if bar.label.startswith("fourways") else "bar"
    centre = y + THICK / 2
    least, most = x(min(bar.values)), x(max(bar.values))
    return (
        f'<text x="{LABELS - 10}" y="{y + 13}" text-anchor="end">{escape(bar.label)}</text>\n'
        f'<rect class="{kind}" x="{LABELS}" y="{y}" width="{max(1.0, x(middle) - LABELS):.1f}" height="{THICK}"/>\n'
        f'<line x1="{least}" y1="{centre}" x2="{most}" y2="{centre}"/>\n'
        f'<text x="{most + 8}" y="{y + 13}">{_figure(middle)}</text>\n'
    )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
