"""Compare global and episodic bonuses on tasks whose levels share different degrees of structure.

    python scripts/reproduce/exploration.py --out runs/exploration
    python scripts/reproduce/exploration.py --tasks corridors rooms --seeds 5 --steps 2e6

Each task has a dial, a parameter that controls how much structure the levels of the task share. A
cell is a task trained with one bonus. One compiled program trains all values of the dial and all
seeds of a cell. A cell is saved when it is finished. If the script is interrupted, repeat the
command to continue. The results in `--out` are:

- `winners.png`: fraction of episodes solved at the end of training, for each task along its dial;
- `visits-TASK.png`: positions that trained agents visit;
- `episode-TASK.png`: bonus of each step of an episode;
- `study.md`: a table per task, and the interquartile mean over all tasks with its interval;
- `TASK-BONUS.npz`: data of a cell.

`--tasks` accepts the names in the table `TASKS` in `_exploration_tasks.py`. The study follows
Henaff, Jiang and Raileanu, 2023, "A Study of Global and Episodic Bonuses for Exploration in
Contextual MDPs". The task `corridors` is their thought experiment. The task `rooms`, whose dial is
the number of levels (contexts), is their first experiment.
"""

import argparse
import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _comparison import table
from _exploration_run import Cell, run_cell
from _exploration_tasks import TASKS
from rich.progress import Progress

from rlgen.evaluation.report import results
from rlgen.registry import did_you_mean


def main(arguments: Sequence[str] | None = None) -> int:
    """Train missing cells, draw the figures, and write the study."""
    options = _parse(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    pairs = [(task, bonus) for task in options.tasks for bonus in _bonuses(task, options)]
    cells: dict[str, dict[str, Cell]] = {}
    for task, bonus in pairs:
        path = options.out / f"{_plain(task)}-{_plain(bonus)}.npz"
        cell = _load(path, task, options) if path.exists() else _train(task, bonus, options)
        if not path.exists():
            _save(path, cell)
        cells.setdefault(task, {})[bonus] = cell
    _draw(cells, options.out)
    text = _report(cells, options)
    results.write(options.out / "study.md", text.encode())
    print(f"\n{text}\nThe study is in {options.out / 'study.md'}")
    return 0


def _parse(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    default = "(default: %(default)s)"
    parser.add_argument(
        "--tasks",
        nargs="+",
        default=list(TASKS),
        help=f"any of: {', '.join(repr(task) for task in TASKS)} (default: all)",
    )
    parser.add_argument("--bonuses", nargs="+", help="names of bonuses (default: all of each task)")
    parser.add_argument("--seeds", type=int, default=5, help=f"seeds per bonus and task {default}")
    parser.add_argument(
        "--steps",
        type=float,
        default=0,
        help=f"env steps per seed; 0 uses the default of each task {default}",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/exploration"), help=f"folder for results {default}"
    )
    options = parser.parse_args(arguments)
    for task in options.tasks:
        if task not in TASKS:
            parser.error(f"unknown task {task!r}; {did_you_mean(task, TASKS)}")
    known = {bonus for task in options.tasks for bonus in TASKS[task].bonuses}
    for bonus in options.bonuses or ():
        if bonus not in known:
            parser.error(f"unknown bonus {bonus!r}; {did_you_mean(bonus, known)}")
    if options.seeds < 1 or options.steps < 0:
        parser.error("--seeds must be at least 1, and --steps must be 0 or more")
    return options


def _bonuses(task: str, options: Any) -> list[str]:
    return [b for b in TASKS[task].bonuses if b in (options.bonuses or TASKS[task].bonuses)]


def _plain(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "-")


def _train(task: str, bonus: str, options: Any) -> Cell:
    with Progress() as progress:
        line = progress.add_task(f"{task}, {bonus}: compiling", total=None)

        def report(done: int, planned: int) -> None:
            said = f"{task}, {bonus}: {done:,} of {planned:,} updates"
            progress.update(line, completed=done, total=planned, description=said)

        return run_cell(TASKS[task], bonus, options.seeds, options.steps, report)


def _save(path: Path, cell: Cell) -> None:
    """Write a cell to a temporary file and rename it, so that no partial cell remains."""
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, **{k: np.asarray(x) for k, x in cell._asdict().items()})  # pyright: ignore[reportArgumentType]
    part.rename(path)


def _load(path: Path, task: str, options: Any) -> Cell:
    """Load the saved data of a cell.

    Raises:
        SystemExit: If the file is damaged, or if the cell has other numbers of seeds, values or
            steps than requested.
    """
    try:
        with np.load(path) as file:
            cell = Cell(**{name: file[name] for name in Cell._fields})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        sys.exit(
            f"{path} is damaged or is not a cell of this study; remove the file, or choose another "
            "--out"
        )
    asked = options.steps or TASKS[task].steps
    wanted = (len(TASKS[task].values), options.seeds)
    if cell.trained.shape != wanted or not 0.9 * asked <= cell.steps[-1] <= 1.01 * asked:
        sys.exit(
            f"{path} was trained with {cell.trained.shape[1]} seeds, {cell.trained.shape[0]} dial "
            f"values and {cell.steps[-1]:.3g} steps, but this study requires {wanted[1]} seeds, "
            f"{wanted[0]} values and {asked:.3g} steps; use the same numbers, or another --out"
        )
    return cell


def _draw(cells: dict[str, dict[str, Cell]], out: Path) -> None:
    from _exploration_figures import episode, visits, winners  # matplotlib is slow to import

    from rlgen.evaluation.report.figures import png_bytes

    results.write(out / "winners.png", png_bytes(winners(cells, TASKS)))
    for task, of_task in cells.items():
        results.write(
            out / f"visits-{_plain(task)}.png", png_bytes(visits(task, TASKS[task], of_task))
        )
        if any(np.isfinite(cell.paid).any() for cell in of_task.values()):
            figure = episode(task, TASKS[task], of_task)
            results.write(out / f"episode-{_plain(task)}.png", png_bytes(figure))


def _report(cells: dict[str, dict[str, Cell]], options: Any) -> str:
    from _exploration_figures import interval_of, overall, said_of

    def said(found: Any) -> str:
        value, low, high = (100 * float(x) for x in found[:3])
        return f"{value:.0f}" if np.isnan(low) else f"{value:.0f} [{low:.0f}, {high:.0f}]"

    parts = [
        f"{options.seeds} seeds; fraction of episodes solved, in %: mean over seeds with its 95 % "
        "interval (Student's t over seeds)."
    ]
    for name, of_task in cells.items():
        task = TASKS[name]
        for what in ("trained", "new"):
            rows = {
                f"{task.dial} {said_of(task, value)}": [
                    said(interval_of(getattr(cell, what)[v][:, None])) for cell in of_task.values()
                ]
                for v, value in enumerate(task.values)
            }
            when = "end of training" if what == "trained" else "levels not used for training"
            steps = next(iter(of_task.values())).steps[-1]
            parts += [f"`{name}`, {when}; {steps:.3g} env steps per seed.", table([*of_task], rows)]
        heads = {"coefficient of the bonus": [f"{task.bonuses[b][1]:g}" for b in of_task]}
        heads["seconds"] = [f"{float(cell.seconds):.0f}" for cell in of_task.values()]
        parts.append(table([*of_task], heads))
    names = list(dict.fromkeys(b for of_task in cells.values() for b in of_task))
    every = {b: overall(cells, b) for b in names}
    rows = {"IQM": [said(x) if x else "-" for x in every.values()]}
    parts += ["Interquartile mean over tasks and values, end of training.", table(names, rows)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    sys.exit(main())
