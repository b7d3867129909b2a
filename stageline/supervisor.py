"""Keeps commands of ``stageline`` running as processes, and the embedded PostgreSQL beside them.

What ends is started again, after a pause that grows while it ends again and again. What the
processes say becomes one stream, each line with the part that it is of. When the supervisor is told
to stop, they are stopped in order; when it is killed, they notice and stop by themselves.
"""

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psutil  # type: ignore[import-untyped]  # ships no types

from stageline import dbt_environment, server
from stageline.config import settings
from stageline.errors import StagelineError
from stageline.personal_data import masked
from stageline.progress import relay

#: Seconds from one look at the parts to the next.
_TICK = 0.2

#: Seconds from one look for PostgreSQL to the next.
_LOOK = 1.0

#: Seconds before the first new start of what ended; doubled each time, up to the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0

#: Seconds after which a part has lived well: its next end counts as the first one again.
_WELL = 60.0

#: A part that ends with this within so many seconds of its first start has told of a mistake of the
#: user's, which no new start mends.
_MISTAKE, _AT_ONCE = 1, 20.0

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Part:
    """A process to keep running.

    Attributes:
        name: What it is called in the log.
        arguments: Of ``stageline``.
        grace: Seconds that it has to end once it is told to.
        needs_postgres: Whether it cannot start while PostgreSQL is away.
    """

    name: str
    arguments: Sequence[str]
    grace: float
    needs_postgres: bool = False


@contextmanager
def only_one(folder: Path) -> Iterator[int]:
    """Makes this the one supervisor of a home; gives the lock, a file descriptor, to be inherited.

    The lock is held until the last process has ended that inherited it.

    Raises:
        StagelineError: another one runs, or parts of one that was killed have not ended yet.
    """
    server.make_home(folder)
    with _lock_file(folder).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StagelineError(
                f"Another `stageline run` keeps {folder} running ({_holder(folder)}), or has not"
                " ended yet. Stop it first, or set STAGELINE_HOME to another folder."
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield lock.fileno()


def running(folder: Path) -> str | None:
    """Which process keeps a home running, as words; None where none does."""
    try:
        with _lock_file(folder).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(folder)
    except OSError:
        return None  # no such home, or somebody else's
    return None


def _lock_file(folder: Path) -> Path:
    return folder / "run.lock"


def _holder(folder: Path) -> str:
    return f"process {_lock_file(folder).read_text().strip() or 'that is starting'}"


def do_first(part: Part, lock: int) -> None:
    """Runs a part that ends by itself, and returns when it has.

    Raises:
        StagelineError: it ended with an error.
        KeyboardInterrupt: a signal came meanwhile; the part has been stopped.
    """
    child = _Child(part, lock)
    try:
        child.start()
        code = child.wait()
    except KeyboardInterrupt:
        child.stop()
        raise
    if code != 0:
        raise StagelineError(child.error, exit_code=code if code > 0 else 1)


def supervise(parts: Sequence[Part], lock: int, *, with_postgres: bool) -> None:
    """Keeps the parts running until SIGTERM, SIGINT or SIGHUP; for the main thread of a process.

    They are stopped in their order, each with its grace; a second signal kills what is left.

    Args:
        parts: What to keep running.
        lock: As `only_one` gives it.
        with_postgres: Whether the embedded server is kept running, too; it is not stopped here.

    Raises:
        StagelineError: a part ended with an error that the user has to mend, at its first start.
    """
    signals: list[int] = []
    for number in _STOPS:
        if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue  # under nohup the end of a terminal is no order
        signal.signal(number, lambda number, _: signals.append(number))
    children = [_Child(part, lock) for part in parts]
    postgres = _Postgres() if with_postgres else None
    if postgres is not None:
        postgres.start()
    _say("keeps running", parts=[part.name for part in parts], process=os.getpid())
    try:
        while not signals:
            for child in children:
                if not (child.part.needs_postgres and postgres and postgres.is_away):
                    child.keep_running()
            time.sleep(_TICK)
    finally:
        _say("stops", signal=signals[0] if signals else None)
        if postgres is not None:
            postgres.leave()
        for child in children:
            child.stop(signals)
        _say("stopped")


class _Pause:
    """How long to wait before a new start: longer each time, unless it lived well meanwhile."""

    def __init__(self) -> None:
        self._next = _FIRST_PAUSE

    def after(self, lived: float) -> float:
        if lived >= _WELL:
            self._next = _FIRST_PAUSE
        pause, self._next = self._next, min(self._next * 2, _LONGEST_PAUSE)
        return pause


class _Child:
    """The process of a part, and the next one after it.

    Attributes:
        error: The last error that the process has told.
    """

    def __init__(self, part: Part, lock: int) -> None:
        self.part = part
        self._lock = lock
        self._pause = _Pause()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._starts = 0
        self._started_at = 0.0
        self._due_at = 0.0
        self.error = ""

    def keep_running(self) -> None:
        """Starts it if it does not run and is due, and notes its end.

        Raises:
            StagelineError: it ended with an error that the user has to mend, at its first start.
        """
        if self._process is None:
            if time.monotonic() >= self._due_at:
                self.start()
        elif self._process.poll() is not None:
            self._note_end(self._process)

    def start(self) -> None:
        """Starts it; the caller has seen to it that it does not run."""
        self.error = "It ended with an error and did not say which."
        self._started_at = time.monotonic()
        self._starts += 1
        process = subprocess.Popen(
            [sys.executable, "-m", "stageline.supervised", *self.part.arguments],
            stdin=subprocess.PIPE,  # never written to: its end tells of ours
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"STAGELINE_LOG_FORMAT": "json", "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C in a terminal is for us, who stop it in its turn
            pass_fds=[self._lock],
        )
        self._process = process
        self._reader = threading.Thread(target=self._pass_on, args=(process,), daemon=True)
        self._reader.start()
        _say("started", what=self.part.name, process=process.pid)

    def _pass_on(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - a pipe, see `start`
        for line in process.stdout:
            said = _read(line)
            if said is None:
                continue
            if said.get("level") == "error" and process is self._process:
                self.error = str(said["event"])
            relay(self.part.name, said)

    def _end_reading(self) -> None:
        if self._reader is not None:
            self._reader.join(1.0)  # what it has started may go on, and hold the pipe

    def _note_end(self, process: subprocess.Popen[bytes]) -> None:
        lived = time.monotonic() - self._started_at
        # Processes of a receiver that was killed hold its port: they end what they are doing.
        _signal_group(process, signal.SIGTERM)
        self._end_reading()
        self._process = None
        if process.returncode == _MISTAKE and self._starts == 1 and lived < _AT_ONCE:
            raise StagelineError(f"The {self.part.name} cannot start: {self.error}")
        pause = self._pause.after(lived)
        self._due_at = time.monotonic() + pause
        _say(
            "ended",
            level="warning",
            what=self.part.name,
            **_end(process.returncode),
            lived_seconds=round(lived, 1),
            again_in_seconds=pause,
        )

    def wait(self) -> int:
        """Waits for its end, and until all is told that it said; gives its exit code."""
        assert self._process is not None  # noqa: S101 - it was started
        code = self._process.wait()
        self._end_reading()
        return code

    def stop(self, signals: Sequence[int] = ()) -> None:
        """Has it end in its grace, or at once if there was more than one of ``signals``."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
        ends = time.monotonic() + self.part.grace
        while process.poll() is None:
            if len(signals) > 1 or time.monotonic() > ends:
                _kill_family(process.pid)
                process.wait()
            time.sleep(0.02)
        _signal_group(process, signal.SIGKILL)
        self._end_reading()
        _say("ended", what=self.part.name, **_end(process.returncode))


class _Postgres(threading.Thread):
    """Starts the embedded server again when it is gone.

    Attributes:
        is_away: Whether it is gone, and not yet back.
    """

    def __init__(self) -> None:
        super().__init__(name="postgres", daemon=True)
        self.is_away = False
        self._enough = threading.Event()

    def leave(self) -> None:
        """Starts it no more; waits for a start that is under way."""
        self._enough.set()
        self.join()

    def run(self) -> None:
        pause, started_at = _Pause(), time.monotonic()
        while not self._enough.wait(_LOOK):
            try:
                if not self.is_away and server.runs(server.home()):
                    continue
                self._start()
            except Exception as error:  # noqa: BLE001 - nobody else would start it again
                # What others say may hold anything.
                is_telling = isinstance(error, StagelineError | OSError)
                wait = pause.after(time.monotonic() - started_at)
                _say(
                    "does not start",
                    level="error",
                    what="postgres",
                    reason=str(error) if is_telling else type(error).__name__,
                    again_in_seconds=wait,
                )
                self._enough.wait(wait)
            started_at = time.monotonic()

    def _start(self) -> None:
        if not self.is_away:
            self.is_away = True
            _say("is gone", level="warning", what="postgres")
        found = server.start(server.home(), settings().port)
        self.is_away = False
        dbt_environment.write(settings().env_file)  # the port may be another one
        _say("started", what="postgres", port=found.port, notes=found.notes or None)


def _kill_family(number: int) -> None:
    """Kills a process with all that it has started, in whatever session."""
    with suppress(psutil.NoSuchProcess):
        parent = psutil.Process(number)
        for process in [*parent.children(recursive=True), parent]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """To what is left of the session of a process that has ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _end(code: int) -> dict[str, Any]:
    return {"signal": -code} if code < 0 else {"code": code}


def _read(line: bytes) -> dict[str, Any] | None:
    """A line of a part: of its log, or words that somebody was to read; None if it is empty."""
    with suppress(orjson.JSONDecodeError):
        said = orjson.loads(line)
        if isinstance(said, dict) and "event" in said:
            return said
    words = masked(line.decode(errors="replace").strip())
    if not words:
        return None
    for level in ("error", "warning"):
        if words.startswith(f"{level}: "):
            return _line(words.removeprefix(f"{level}: "), level)
    return _line(words, "info")


def _line(event: str, level: str) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")  # as the log writes it
    return {"timestamp": now, "level": level, "event": event}


def _say(event: str, level: str = "info", **figures: object) -> None:
    relay("run", _line(event, level) | figures)
