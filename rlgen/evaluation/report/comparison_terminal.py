"""Print a comparison in the terminal, at most 80 columns wide."""

from collections.abc import Sequence

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlgen.evaluation.episodes import printable
from rlgen.evaluation.report.comparison import Compared
from rlgen.evaluation.stats.comparison import answer, sentences, together
from rlgen.evaluation.stats.formatting import show, show_count, show_interval

RUNS_ACROSS = 6  # number of columns of a matrix that fit next to the names
NAME = 22  # maximum number of letters of a name


def print_comparison(found: Compared, console: Console) -> None:
    """Print the main finding, the ranking, the matrix, the costs, and all differences in words."""
    ranking, first = found.ranking, found.evaluations[0]
    suite = f"the {first.shape[1]} levels of {first.suite} v{first.suite_version}"
    console.print(Text(printable(answer(ranking, suite)), style="bold"))
    console.print(_ranking(found))
    for table in _matrices(found):
        console.print(table)
    console.print(_costs(found))
    for kind, told in sentences(ranking).items():
        console.print(Text(f"{kind}:", style="bold"))
        for sentence in told:
            console.print(Text(f"  {printable(sentence)}"))
    notes = [*found.notes, f"Confidence of the verdicts: {together(ranking)} (Welch, Holm)."]
    for note in notes:
        console.print(Text(printable(note), style="dim"))


def _ranking(found: Compared) -> Table:
    ranking = found.ranking
    table = _table("Ranking", ("method", "rank", "mean", "IQM", "possible ranks"))
    for place in ranking.places:
        scores = [show_interval(one, ranking.score) for one in (place.mean, place.iqm)]
        ranks = str(place.best) if place.best == place.worst else f"{place.best} to {place.worst}"
        table.add_row(_name(place.run), str(place.rank), *scores, ranks)
    return table


def _matrices(found: Compared) -> list[Table]:
    """Tables of P(row better than column), each with at most `RUNS_ACROSS` columns."""
    runs = [place.run for place in found.ranking.places]
    matrix = found.ranking.improvement(runs)
    tables = []
    for start in range(0, len(runs), RUNS_ACROSS):
        part = slice(start, start + RUNS_ACROSS)
        heads = [_cut(run, 8) for run in runs[part]]
        table = _table("P(row better than column)", ("", *heads))
        for run, row in zip(runs, matrix[:, part], strict=True):
            cells = ["-" if np.isnan(x) else show(float(x), "solve rate", 0) for x in row]
            table.add_row(_name(run), *cells)
        tables.append(table)
    return tables


def _costs(found: Compared) -> Table:
    heads = ("method", "seeds", "env steps\nper seed", "gradient\nupdates", "seconds,\nall seeds")
    table = _table("Training cost", heads)
    for cost in found.costs:
        numbers = (cost.total_steps, cost.gradient_updates, cost.wall_seconds)
        table.add_row(_name(cost.run), str(cost.seeds), *map(show_count, numbers))
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    heading = Text(title, style="bold")
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.min_width = len(title)  # without it, the title wraps if the columns are narrow
    for i, name in enumerate(columns):
        table.add_column(Text(name), justify="right" if i else "left", no_wrap=True)
    return table


def _name(text: str) -> Text:
    return Text(_cut(text, NAME))


def _cut(text: str, limit: int) -> str:
    text = printable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
