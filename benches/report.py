"""The figures of a run, as a table."""
import statistics
from dataclasses import asdict, dataclass, field

WIDTH = 66


@dataclass
class Row:
    """One figure of both sides, from samples taken in turns.

    stock is empty if it has nothing to compare. least is the goal for the
    ratio of stock's figure to ours, most the goal for ours. For a rate more is
    better: the ratio is that of ours to stock's, and floor is the goal for
    ours.
    """
    part: str
    text: str
    unit: str
    stock: list
    ours: list
    least: float = None
    most: float = None
    rate: bool = False
    floor: float = None
    # For work that needs only the processor, the minimum is disturbed least by
    # other work of the machine.
    statistic: str = 'minimum'
    figures: dict = field(init=False)

    def __post_init__(self):
        figure = {'minimum': min, 'median': statistics.median}[self.statistic]
        self.figures = {
            'stock': figure(self.stock) if self.stock else None,
            'ours': figure(self.ours)}

    @property
    def ratio(self):
        over, under = self.figures['stock'], self.figures['ours']
        if self.rate:
            over, under = under, over
        if over is None or under is None or under <= 0:
            return None
        return over / under

    @property
    def reached(self):
        "Whether the goal is reached, None if there is none"
        if self.least is None and self.most is None and self.floor is None:
            return None
        return (
            (self.least is None or (self.ratio or 0) >= self.least)
            and (self.most is None or self.figures['ours'] <= self.most)
            and (self.floor is None or self.figures['ours'] >= self.floor))

    def asdict(self):
        return {
            **asdict(self), 'ratio': self.ratio, 'reached': self.reached}

    def cells(self):
        goals = []
        if self.most is not None:
            goals.append("<= %s" % number(self.most))
        if self.floor is not None:
            goals.append(">= %s" % number(self.floor))
        if self.least is not None:
            goals.append(">= %s x" % number(self.least))
        mark = {None: "", True: "yes", False: "NO"}[self.reached]
        return [
            "%s, %s%s" % (
                self.text, self.unit,
                ", median" if self.statistic == 'median' else ""),
            number(self.figures['stock']), number(self.figures['ours']),
            "%s x" % number(self.ratio) if self.ratio else "",
            ", ".join(goals), mark]


def number(value):
    "With three digits or more, empty for none"
    if value is None:
        return ''
    if abs(value) >= 1000:
        return format(value, ',.0f')
    return '%.3g' % value


def print_head(run):
    print(run)
    _print_cells(["", "stock", "ours", "ratio", "to reach", ""])


def print_part(title, rows):
    if title:
        print(title)
    for row in rows:
        _print_cells(row.cells())


def _print_cells(cells):
    text, stock, ours, ratio, goal, reached = cells
    print(f"  {text:<{WIDTH}}{stock:>9}{ours:>9}{ratio:>9}  "
        f"{goal:<16}{reached}".rstrip(), flush=True)
