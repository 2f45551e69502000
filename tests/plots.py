"""Compares the plots and tables of the docs with new ones from the recorded
runs, in the environment that draws them: `python -m tests.plots`."""
import sys
import tempfile
from pathlib import Path

from benches import plots, tables


def main():
    with tempfile.TemporaryDirectory() as directory:
        plots.main(directory)
        drawn = contents(directory)
    kept = contents(plots.IMAGES)
    if differ := sorted(
            name for name in {*drawn, *kept}
            if drawn.get(name) != kept.get(name)):
        sys.exit("make plots would change %s" % ', '.join(differ))
    if pages := sorted(
            path.name for path, text in tables.written().items()
            if text != path.read_text()):
        sys.exit("make plots would change %s" % ', '.join(pages))
    if large := sorted(
            name for name, text in drawn.items() if len(text) > 60_000):
        sys.exit("larger than 60 kB: %s" % ', '.join(large))


def contents(directory):
    return {
        path.name: path.read_bytes()
        for path in Path(directory).glob('plot-*.svg')}


if __name__ == '__main__':
    main()
