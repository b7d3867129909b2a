"""Shows long work: a live display on a terminal, JSON lines (structlog) elsewhere; on stderr."""

import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, BinaryIO, cast

import orjson
import structlog
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from stageline.config import settings
from stageline.personal_data import mask


@cache
def is_live() -> bool:
    """True where a person watches: progress is drawn; False: it is logged as JSON lines."""
    chosen = settings().log_format
    return chosen == "console" or (chosen == "auto" and sys.stderr.isatty())


#: Seconds between the lines that tell how far counted work is, where nobody watches.
TOLD_EVERY = 10.0


class _Lines:
    """stderr, for whole lines: each at once, or those of a moment together.

    Writing lets other threads in; where many of them log, one write a line costs more than all the
    rest of it.
    """

    #: Seconds that lines are gathered for, and bytes that a pipe takes without mixing them with
    #: those of another process.
    MOMENT = 0.05
    AT_ONCE = 4096

    def __init__(self) -> None:
        self.gathers = False
        self._lock = threading.Lock()
        self._held: list[bytes] = []
        self._size = 0
        self._written_at = 0.0

    def write(self, line: bytes) -> None:
        with self._lock:
            if self._size + len(line) > self.AT_ONCE:
                self._write_held()
            self._held.append(line)
            self._size += len(line)
            if not self.gathers or time.monotonic() > self._written_at + self.MOMENT:
                self._write_held()

    def flush(self) -> None:
        """Nothing: `write` decides, and `write_gathered`."""

    def write_held(self) -> None:
        with self._lock:
            self._write_held()

    def _write_held(self) -> None:
        if self._held:
            sys.stderr.buffer.write(b"".join(self._held))
            sys.stderr.buffer.flush()
            self._held.clear()
            self._size = 0
        self._written_at = time.monotonic()


_lines = _Lines()


def gather_lines() -> None:
    """From now on, log lines that come close together are written together.

    Whoever calls this calls `write_gathered` again and again, and in the end.
    """
    _lines.gathers = True


def write_gathered() -> None:
    """Writes log lines that were held back."""
    _lines.write_held()


@cache
def log() -> structlog.stdlib.BoundLogger:
    """The structured logger, on stderr, instants in UTC.

    One JSON object a line; aligned text where a person watches.
    """
    if is_live():
        render: structlog.typing.Processor = _for_people()
        to_stderr: Any = structlog.PrintLoggerFactory(file=sys.stderr)
    else:
        render = structlog.processors.JSONRenderer(serializer=orjson.dumps)
        to_stderr = structlog.BytesLoggerFactory(file=cast(BinaryIO, _lines))
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            mask,
            render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=to_stderr,
        cache_logger_on_first_use=True,
    )
    logger: structlog.stdlib.BoundLogger = structlog.get_logger().bind()
    return logger


class Forward(logging.Handler):
    """Puts the messages of a library into our log, under a name of ours."""

    def __init__(self, event: str, level: int) -> None:
        super().__init__(level)
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        kind = record.exc_info[0] if record.exc_info else None
        log().log(
            record.levelno,
            self._event,
            reason=record.getMessage(),
            error=kind.__name__ if kind else None,
        )


def relay(part: str, said: Mapping[str, Any]) -> None:
    """Logs a line of another process, whose instant, level and event are its own.

    Args:
        part: What that process is called.
        said: A line as `log` writes it.
    """
    if is_live():
        words = _for_people()(None, "", dict(said))
        sys.stderr.write(f"{part:<9} {words}\n")
    else:
        _lines.write(orjson.dumps({"part": part, **said}) + b"\n")


@cache
def _for_people() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer()


@cache
def _console() -> Console:
    return Console(stderr=True)


class Step:
    """One piece of work in progress: counts what is done and remembers figures to end with."""

    def __init__(self, progress: Progress | None, title: str, total: int | None) -> None:
        self._progress = progress
        self._task = progress.add_task(title, total=total) if progress else None
        self._title, self._told_at = title, time.monotonic()
        self.figures: dict[str, int | float | str] = {}

    def advance(self, count: int = 1) -> None:
        """Another ``count`` units of the total are done."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, count)

    def show(self, done: int, expected: int | None) -> None:
        """So many units are done, of so many as far as is known."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=expected)
        elif time.monotonic() > self._told_at + TOLD_EVERY:
            self._told_at = time.monotonic()
            log().info("under way", step=self._title, done=done, expected=expected)

    def note(self, **figures: int | float | str) -> None:
        """Figures to stand beside the step when it ends (rows, files, ...)."""
        self.figures.update(figures)


class _Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


@contextmanager
def step(title: str, total: int | None = None, *, is_counted: bool = False) -> Iterator[Step]:
    """Shows ``title`` while the block runs, then its duration and figures.

    Args:
        title: What is being done, as a person would say it.
        total: How many units the work has, where that is known; draws a bar with an estimate.
        is_counted: Draws the bar also where the total shows only on the way (`Step.show`).
    """
    started = time.monotonic()
    if not is_live():
        log().info("started", step=title)
        current = Step(None, title, total)
        try:
            yield current
        except BaseException as error:
            log().error("failed", step=title, seconds=_since(started), error=type(error).__name__)
            raise
        log().info("done", step=title, seconds=_since(started), **current.figures)
        return
    columns = [SpinnerColumn(), TextColumn("{task.description}")]
    counted = (
        [BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn()]
        if total or is_counted
        else []
    )
    with Progress(
        *columns, *counted, TimeElapsedColumn(), console=_console(), transient=True
    ) as bar:
        current = Step(bar, title, total)
        try:
            yield current
        except BaseException:
            bar.stop()
            _console().print(f"[red]✗[/] {title} [dim]{_since(started):.1f} s[/]")
            raise
    figures = ", ".join(
        f"{name.replace('_', ' ')} {value}" for name, value in current.figures.items()
    )
    _console().print(
        f"[green]✓[/] {title} [dim]{_since(started):.1f} s[/] {figures}", highlight=False
    )


def _since(started: float) -> float:
    return round(time.monotonic() - started, 3)
