"""What a run shows: tables on the terminal, and the page in docs/reference with its chart."""

import math
from html import escape

from rows import FIGURES

THEMES = {
    "light": {"back": "#ffffff", "edge": "#d1d9e0", "text": "#1f2328", "small": "#59636e", "ahead": "#1a7f37", "behind": "#bc4c00"},
    "dark": {"back": "#0d1117", "edge": "#3d444d", "text": "#f0f6fc", "small": "#9198a1", "ahead": "#3fb950", "behind": "#f0883e"},
}


def number(value, digits):
    return "-" if value is None else f"{value:,.{digits}f}"


def percent(value):
    return "not known" if value is None else f"{100 * value:.1f} %"


def table(result):
    """Rows of cells: a heading, the agent, then each peer and the ratio to it."""
    figures = result.row.figures
    cells = [["", *(FIGURES[key][0] for key in figures), ""]]
    for side in result.samples:
        cells.append([side, *(number(result.median(side, key), FIGURES[key][1]) for key in figures), ""])
        if side in result.peers:
            ratios = [number(result.ratio(side, key), 2) for key in figures]
            cells.append([f"{result.ours} ÷ {side}", *ratios, f"spread {percent(result.spread(side))}" if result.row.main else ""])
    return cells


def remarks(result, quick):
    """What to know about the figures of one row."""
    found = [f"{result.rounds} round{'s' if result.rounds != 1 else ''}"]
    if result.noise:
        found.append(f"other programs used {percent(sum(result.noise) / len(result.noise))} of the processors")
    if quick:
        found.append("a quick run: too short for figures")
    elif not result.steady():
        found.append("TOO NOISY: the spread is not under 5 %, so these figures are no result")
    return "; ".join(found)


def terminal(result, quick):
    cells = table(result)
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = [f"{result.row.name}: {result.row.title.replace('`', '')}", f"  ({remarks(result, quick)})"]
    for row in cells:
        first, *middle, last = row
        line = "  ".join([first.ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(middle, widths[1:]))])
        lines.append(f"  {line}  {last}".rstrip())
    return "\n".join(lines)


def markdown(result):
    cells = table(result)
    lines = [f"## {result.row.title}", "", f"`{result.row.name}`: {remarks(result, False)}.", ""]
    for index, row in enumerate(cells):
        lines.append("| " + " | ".join(row) + " |")
        if index == 0:
            lines.append("| --- |" + " ---: |" * (len(row) - 2) + " --- |")
    return "\n".join(lines)


def bars(results):
    """For the chart: the label, and how many times better the agent is in a row's first main figure."""
    found = []
    for result in results:
        for key in result.row.main[:1]:
            for peer in result.peers:
                ratio = result.ratio(peer, key)
                if ratio and result.steady():
                    found.append((result.row.title.replace("`", "").split(" (")[0], peer, FIGURES[key], ratio if FIGURES[key][2] else 1 / ratio))
    return found


def chart(results, theme):
    colour, rows = THEMES[theme], bars(results)
    left, width, step, top = 470, 760, 24, 58
    height = top + step * len(rows) + 16
    reach = max([math.log2(2), *(abs(math.log2(value)) for *_, value in rows)])
    centre, half = (left + width) / 2, (width - left) / 2 - 44
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12">',
        "<title>The agent beside each peer</title>",
        "<desc>Bars to the right: the agent is ahead, by this factor. Bars to the left: behind.</desc>",
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="8" fill="{colour["back"]}" stroke="{colour["edge"]}"/>',
        f'<text x="16" y="24" font-size="14" fill="{colour["text"]}">The agent beside each peer: how many times better</text>',
        f'<text x="{centre - 6}" y="44" text-anchor="end" fill="{colour["small"]}">behind</text>',
        f'<text x="{centre + 6}" y="44" fill="{colour["small"]}">ahead</text>',
    ]
    shown = None
    for index, (title, peer, figure, value) in enumerate(rows):
        y = top + step * index
        length = half * math.log2(value) / reach
        start, fill = (centre, colour["ahead"]) if value >= 1 else (centre + length, colour["behind"])
        if title != shown:
            out.append(f'<text x="16" y="{y + 12}" fill="{colour["text"]}">{escape(title)}</text>')
            shown = title
        out.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end" fill="{colour["small"]}">{escape(peer)}</text>')
        out.append(f'<rect x="{start:.1f}" y="{y}" width="{abs(length):.1f}" height="16" rx="2" fill="{fill}"/>')
        anchor, x = ("start", centre + length + 5) if value >= 1 else ("end", centre + length - 5)
        out.append(f'<text x="{x:.1f}" y="{y + 12}" text-anchor="{anchor}" fill="{colour["text"]}">{value:.2f}</text>')
    out.append(f'<line x1="{centre}" y1="50" x2="{centre}" y2="{height - 14}" stroke="{colour["small"]}"/>')
    return "\n".join([*out, "</svg>"]) + "\n"


def page(results, machine):
    facts = "\n".join(f"| {name} | {value} |" for name, value in machine)
    return f"""# Benchmarks

<!-- `make bench-update` writes this page and its chart. -->

The agent beside its peers, measured in one run on one machine. The figures in microseconds and per second belong to this
machine. The ratios are what to compare. The chart shows the first figure of each steady row. Right of the line the agent
needs less, or does more in a second.

<picture>
  <source media="(prefers-color-scheme: dark)" srcset="benchmarks-dark.svg">
  <img alt="Bars for each row and peer: how many times better the agent is" src="benchmarks-light.svg" width="760">
</picture>

## Reproduce

```sh
make bench                                # every row, on the terminal
make bench ARGS='--row get-64'            # one row; --list lists them
make bench ARGS='--row get-64 --wrk'      # the same load by wrk
make bench-update                         # writes this page
```

| on | |
| --- | --- |
{facts}

- Server and client have one processor each, and a network namespace of their own. The agent has one server thread and
  nginx one worker.
- Each round starts every server anew and measures all of them in turn, in another order than the round before.
- One client (`tests/bench/src/bin/bench-client.rs`) sends all requests, to Redis too, and checks each answer. A lost
  request fails its row.
- CPU is the server's time in user and system mode for one request. Time in interrupts may count for neither side.
- A ratio is the median over the rounds. Its spread is the width of the 95 % confidence interval of that median, as a share
  of the median. A row ends when the spread of its main figures is under 5 %, or is marked as too noisy after 30 rounds.
- A launch runs against moto, with 100 ms added to each call. moto's targets are healthy at once.
- The bare servers know no limits, no time and no routes: they show what the kernel and the library cost.

""" + "\n\n".join(markdown(result) for result in results) + "\n"
