"""Two small plots, in the terminal and as a PNG: where the CPU of a turn goes, and that its cost does not grow."""

import statistics
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from benchmarks.driver import Result
from benchmarks.measures import THROUGHPUT, THROUGHPUT_STREAM, Growth
from benchmarks.report import Pairs

PARTS = ("gateway", "session_svc", "redis")
COLOURS = {"gateway": "#3b6fb6", "session_svc": "#e0903c", "redis": "#b43c3c"}
MARKS = {"gateway": "█", "session_svc": "▓", "redis": "░"}
BUDGETS = (1.2, 2.2)
WIDTH, HEIGHT, MARGIN = 900, 520, 130
_BLOCKS = " ▁▂▃▄▅▆▇█"


def shares(pairs: Pairs) -> dict[str, dict[str, float]]:
    """Returns the CPU of a turn by process, in ms, plain and streamed."""
    cases = {"plain": THROUGHPUT, "streamed": THROUGHPUT_STREAM}
    return {label: _parts([ours for ours, _ in pairs[case.name]]) for label, case in cases.items()}


def in_terminal(pairs: Pairs, growth: Growth) -> str:
    """Returns the plots as text."""
    lines = ["CPU of a turn, ms (" + ", ".join(f"{MARKS[part]} {part}" for part in PARTS) + ")"]
    for label, parts in shares(pairs).items():
        bar = "".join(MARKS[part] * round(parts[part] * 20) for part in PARTS)
        lines.append(f"  {label:9}{bar} {sum(parts.values()):.2f}")
    ruler = ""
    for budget in BUDGETS:
        ruler = ruler.ljust(round(budget * 20)) + f"| {budget:g}"
    lines.append(f"  {'budgets':9}{ruler}")
    costs = [cpu for _, _, cpu in growth.curve]
    most = max(costs)
    spark = "".join(_BLOCKS[round(cost / most * 8)] for cost in costs)
    lines.append(f"CPU of a turn from turn 1 to turn {growth.curve[-1][0]}, window 20, most {most:.2f} ms")
    lines.append(f"  {spark}")
    return "\n".join(lines)


def to_png(pairs: Pairs, growth: Growth, file: Path) -> None:
    """Draws the plots into a PNG."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw = ImageDraw.Draw(image)
    _draw_bars(draw, shares(pairs))
    _draw_curve(draw, growth)
    image.save(file, optimize=True)


def _parts(results: list[Result]) -> dict[str, float]:
    return {part: statistics.median(result.cpu_ms[part] for result in results) for part in PARTS}


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _draw_bars(draw: ImageDraw.ImageDraw, bars: dict[str, dict[str, float]]) -> None:
    most = max(*BUDGETS, *(sum(parts.values()) for parts in bars.values())) * 1.05
    scale = (WIDTH - MARGIN - 40) / most
    draw.text((20, 14), "CPU of a turn, 32 at once, ms", fill="black", font=_font(18))
    for row, (label, parts) in enumerate(bars.items()):
        top, left = 60 + row * 50, float(MARGIN)
        draw.text((20, top + 6), label, fill="black", font=_font(16))
        for part in PARTS:
            right = left + parts[part] * scale
            draw.rectangle((left, top, right, top + 34), fill=COLOURS[part])
            draw.text((left + 4, top + 9), f"{parts[part]:.2f}", fill="white", font=_font(13))
            left = right
    for budget in BUDGETS:
        at = MARGIN + budget * scale
        draw.line((at, 50, at, 155), fill="black", width=1)
        draw.text((at - 12, 157), f"{budget:g}", fill="black", font=_font(13))
    for number, part in enumerate(PARTS):
        left = MARGIN + 330 + number * 130
        draw.rectangle((left, 20, left + 12, 32), fill=COLOURS[part])
        draw.text((left + 18, 17), part, fill="black", font=_font(14))


def _draw_curve(draw: ImageDraw.ImageDraw, growth: Growth) -> None:
    top, bottom, left, right = 240, HEIGHT - 50, MARGIN, WIDTH - 40
    most = max(cpu for _, _, cpu in growth.curve) * 1.3
    last = growth.curve[-1][0]
    draw.text((20, 196), "CPU of a turn as its session grows, window 20, ms", fill="black", font=_font(18))
    points = [
        (left + turn / last * (right - left), bottom - cpu / most * (bottom - top)) for turn, _, cpu in growth.curve
    ]
    draw.line((left, top, left, bottom, right, bottom), fill="black")
    draw.line(points, fill=COLOURS["gateway"], width=3)
    for mark in (0, last // 2, last):
        draw.text((left + mark / last * (right - left) - 12, bottom + 8), str(mark), fill="black", font=_font(13))
    for share in (0.0, 0.5, 1.0):
        at = bottom - share * (bottom - top)
        draw.text((left - 45, at - 8), f"{share * most:.2f}", fill="black", font=_font(13))
    draw.text((right - 120, bottom + 26), "turn of the session", fill="black", font=_font(13))
