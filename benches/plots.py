"""Draws the plots of the docs from recorded runs: `python -m benches.plots`.

The same runs give the same bytes, so that a test can compare the plots with
the runs.
"""
import json
import sys
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from .record import RESULTS, ROOT

IMAGES = ROOT / 'docs' / 'images'
# Colours for a light page, and their replacements on a dark one. The colours
# of lines are from the palette of Okabe and Ito, which colour-blind readers
# can distinguish.
COLOURS = {
    '#ffffff': '#0d1117', '#1f2328': '#e6edf3', '#d1d9e0': '#30363d',
    '#59636e': '#9198a1', '#d55e00': '#ff8f3f', '#a8607f': '#e29bbd',
    '#0072b2': '#56b4e9', '#007a5a': '#2fc49a', '#7a6a00': '#e0c92f'}
PAGE, INK, GRID, GREY, RED, PINK, BLUE, GREEN, OLIVE = COLOURS
STYLE = {
    'svg.fonttype': 'none', 'svg.hashsalt': 'trytond-fastbus',
    'font.family': 'sans-serif', 'font.sans-serif': ['DejaVu Sans'],
    'font.size': 10, 'text.color': INK, 'axes.labelcolor': INK,
    'axes.edgecolor': GREY, 'xtick.color': GREY, 'ytick.color': GREY,
    'xtick.labelcolor': INK, 'ytick.labelcolor': INK,
    'axes.facecolor': PAGE, 'figure.facecolor': PAGE,
    'axes.spines.top': False, 'axes.spines.right': False,
    'axes.grid': True, 'grid.color': GRID, 'grid.linewidth': .8,
    'axes.axisbelow': True,
    }
# The label of each server, its colour, marker and line
SERVERS = {
    'stock': ("stock, threads", RED, 'o', '-'),
    'stock, coroutine': ("stock, --coroutine", RED, 's', '--'),
    'fastbus': ("fastbus, threads", PINK, 'o', '-'),
    'fastbus, coroutine': ("fastbus, --coroutine", PINK, 's', '--'),
    'nchan': ("nginx with nchan", OLIVE, '^', '-'),
    'trytond-bus': ("trytond-bus", BLUE, 'D', '-'),
    }


def main(directory=IMAGES):
    with matplotlib.rc_context(STYLE):
        for draw, run in [
                (memory, 'server'), (last, 'server'),
                (deliveries, 'server'), (poll, 'poll')]:
            # A part without a record has no plot.
            if (RESULTS / f'{run}.json').exists():
                save(
                    draw(rows(run)),
                    Path(directory) / f'plot-{draw.__name__}.svg')


def rows(name):
    return json.loads((RESULTS / f'{name}.json').read_text())['rows']


def series(rows, text):
    "The figures of each server, {number of polls: figure}"
    found = {name: {} for name in SERVERS}
    for row in rows:
        if row['text'] == text and row['server'] in found:
            found[row['server']][row['polls']] = row['figure']
    return {name: figures for name, figures in found.items() if figures}


def memory(rows):
    figures = series(rows, "memory of a waiting poll")
    return curves(
        "A waiting poll takes %s times less memory than under trytond" % times(
            figures, 1000),
        "waiting polls", "memory of each, KB",
        {name: {x: y / 1e3 for x, y in curve.items()}
            for name, curve in figures.items()})


def last(rows):
    figures = series(rows, "to the last of all, p50")
    return curves(
        "One message has reached 1,000 clients %s times sooner" % times(
            figures, 1000),
        "waiting polls", "until the last has it, ms", figures)


def times(figures, polls):
    "How many times less trytond-bus takes than the better of stock"
    least = min(figures['stock'][polls], figures['stock, coroutine'][polls])
    return format(least / figures['trytond-bus'][polls], ',.0f')


def deliveries(rows):
    figures = {
        name: curve[1000]
        for name, curve in series(rows, "deliveries").items()}
    most = max(figures['stock'], figures['stock, coroutine'])
    figure, axes = start(
        "trytond-bus delivers %s times as much as stock" % format(
            figures['trytond-bus'] / most, ',.0f'),
        "deliveries a second, to 1,000 clients", "")
    axes.set_xscale('log')
    for place, (name, value) in enumerate(reversed(figures.items())):
        _, colour, marker, _ = SERVERS[name]
        # No bars, because their length would mean nothing on this axis.
        axes.plot(value, place, color=colour, marker=marker, markersize=9)
        axes.annotate(
            format(value, ',.0f'), (value, place), (9, -1),
            textcoords='offset points', va='center', color=colour,
            fontweight='bold')
    axes.set_xlim(min(figures.values()) / 4, 6 * max(figures.values()))
    axes.margins(y=.12)
    axes.set_yticks(
        range(len(figures)),
        [SERVERS[name][0] for name in reversed(figures)])
    axes.tick_params(axis='y', length=0)
    plain(axes.xaxis)
    return figure


def poll(rows):
    found = {'stock': {}, 'trytond-bus': {}}
    for row in rows:
        number, _, rest = row['text'].partition(' retained')
        if not rest:
            number = int(number.replace(',', ''))
            found['stock'][number] = row['figures']['stock']
            found['trytond-bus'][number] = row['figures']['ours']
    return curves(
        "The cost of a poll no longer grows with the messages retained",
        "messages retained for others", "a poll, µs",
        found, {'stock': "stock", 'trytond-bus': "fastbus"}, 'symlog')


def curves(title, x, y, curves, labels=None, scale='log'):
    figure, axes = start(title, x, y)
    axes.set_xscale(scale, **({'linthresh': 1000} if scale != 'log' else {}))
    axes.set_yscale('log')
    ends = []
    for name, curve in curves.items():
        label, colour, marker, line = SERVERS[name]
        points = sorted(curve.items())
        axes.plot(
            *zip(*points, strict=True), color=colour, marker=marker,
            linestyle=line, linewidth=2, markersize=5)
        ends.append((
                points[-1], colour,
                (labels or {}).get(name, label)))
    axes.set_xticks(sorted({x for curve in curves.values() for x in curve}))
    axes.margins(y=.12)
    low, high = axes.get_ylim()
    if high < 100 * low:
        # Otherwise one power of ten would be the only number.
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plain(axes.xaxis)
    plain(axes.yaxis)
    write(axes, ends)
    return figure


def write(axes, ends):
    "Write the labels beside the ends of the lines, none over another"
    heights = {}
    for (x, y), colour, label in sorted(ends, key=lambda end: end[0][1]):
        place = axes.transData.transform((x, y))
        height = max(place[1], heights.get(x, -1e9) + 15)
        heights[x] = height
        axes.annotate(
            label, (x, y), (9, (height - place[1]) * 72 / 100 - 1),
            textcoords='offset points', va='center', color=colour,
            fontweight='bold')


def start(title, x, y):
    figure = Figure(figsize=(7.2, 3.7), dpi=100)
    axes = figure.add_axes((.12, .15, .64, .7))
    if not y:
        axes.set_position((.23, .15, .72, .7))
    figure.text(
        .02, .93, title, fontsize=12, fontweight='bold', color=INK)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def plain(axis):
    "Numbers as they are read, not powers of ten"
    axis.set_major_formatter(FuncFormatter(lambda value, _: f'{value:,.7g}'))
    axis.set_minor_locator(NullLocator())


def save(figure, path):
    figure.savefig(path, format='svg', metadata={'Date': None})
    text = path.read_text()
    rules = ''.join(
        f'[style*="{use}: {light}"]{{{use}:{dark}!important}}'
        for light, dark in COLOURS.items() for use in ['fill', 'stroke'])
    style = f'@media(prefers-color-scheme:dark){{{rules}}}'
    # The text uses the reader's font.
    text = text.replace("'DejaVu Sans', sans-serif", "sans-serif")
    path.write_text(
        text.replace('</style>', style + '</style>', 1).replace(' \n', '\n'))


if __name__ == '__main__':
    main(*sys.argv[1:])
