"""What the commands print: tables, progress and notes."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any


def _console(stderr: bool = False) -> Any:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 140
    return Console(file=stream, highlight=False, soft_wrap=not stream.isatty(), width=width)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on standard output; columns of numbers are aligned on the right."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    grid = Table(title=escape(title) if title else None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for index, column in enumerate(columns):
        numeric = all(_is_number(row[index]) for row in rows) and bool(rows)
        grid.add_column(escape(column), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(escape(str(cell)) for cell in row))
    _console().print(grid)


def section(part: Any) -> None:
    """Print a `calib.describe.Section`: its table, if it has rows, and its notes."""
    if part.rows:
        table(part.title, part.columns, part.rows)
    elif part.notes:
        text(part.title)
    for sentence in part.notes:
        text(f"  {sentence}")
    if part.notes:
        text()


def text(message: str = "") -> None:
    """Print a line on standard output."""
    print(message)


def note(message: str) -> None:
    """Print a line on standard error: what is being done."""
    print(message, file=sys.stderr)


def warn(message: str) -> None:
    """Print a warning on standard error."""
    print(f"warning: {message}", file=sys.stderr)


@contextlib.contextmanager
def progress(total: int, label: str) -> Iterator[Callable[..., None]]:
    """Show progress on standard error: a bar on a terminal, a plain line every few seconds elsewhere.

    Yields a function ``advance(n=1, text="")``.
    """
    if sys.stderr.isatty():
        with _bar(total, label) as advance:
            yield advance
        return
    done, last = 0, time.monotonic()

    def advance(n: int = 1, text: str = "") -> None:
        nonlocal done, last
        done += n
        if time.monotonic() - last > 5 or done == total:
            last = time.monotonic()
            note(f"{label}: {done}/{total} {text}".rstrip())

    yield advance


@contextlib.contextmanager
def _bar(total: int, label: str) -> Iterator[Callable[..., None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[text]}"), console=_console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, text="")

        def advance(n: int = 1, text: str = "") -> None:
            bar.update(task, advance=n, text=text)

        yield advance


def _is_number(cell: Any) -> bool:
    try:
        float(str(cell).split(" ")[0].rstrip("%"))
    except ValueError:
        return False
    return True
