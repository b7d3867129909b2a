"""dbt as a process that can be stopped, without the seconds that its import takes.

Each run is forked from a process that has imported dbt and does nothing else (multiprocessing's
forkserver; it ends with ours). So runs share no state: dbt's invocations in one process disturb
each other.
"""

import gc
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from multiprocessing import get_context, reduction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_CONTEXT = get_context("forkserver")


class DbtProcess:
    """A dbt that runs; ``stdout`` has what it writes, errors among it.

    Args:
        arguments: Of dbt.
        folder: Where it runs.
        environment: Its variables.
        results: Where it writes what became of each node, even where it writes no other JSON.
        kept_open: File descriptors that stay open for as long as it lives.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        results: Path | None = None,
        kept_open: Sequence[int] = (),
    ) -> None:
        _CONTEXT.set_forkserver_preload(["jobs.imported_dbt"])
        reading, writing = os.pipe()
        self._process = _CONTEXT.Process(
            target=_run,
            args=(
                *(list(arguments), str(folder), dict(environment), results),
                *(_Inherited(writing), [_Inherited(descriptor) for descriptor in kept_open]),
            ),
            daemon=True,
        )
        try:
            self._process.start()
        finally:
            os.close(writing)
        self.stdout = os.fdopen(reading, encoding="utf-8", errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stdout.close()
        self.wait()

    def poll(self) -> int | None:
        """Its exit code, below zero where a signal ended it; None while it runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """Waits for its end; gives its exit code."""
        self._process.join()
        code = self._process.exitcode
        assert code is not None  # noqa: S101 - it has been waited for
        return code

    def stop(self) -> None:
        """Has it cancel its queries and end."""
        self._signal(signal.SIGINT)

    def kill(self) -> None:
        """Ends it at once."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self.poll() is None and self._process.pid is not None:
            os.kill(self._process.pid, number)


class _Inherited:
    """A file descriptor that the process that is started gets a copy of."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self.descriptor),)


def _received(handle: Any) -> "_Inherited":
    return _Inherited(handle.detach())


def _run(
    arguments: list[str],
    folder: str,
    environment: dict[str, str],
    results: Path | None,
    output: _Inherited,
    kept_open: list[_Inherited],  # noqa: ARG001 - open as long as this process lives
) -> None:
    os.setsid()  # Ctrl-C in a terminal goes to the process that started this one, and from it to us
    # What a shell starts in the background has it ignored, and dbt is stopped by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A failed cast puts a row's value into dbt's log and results: for their owner alone.
    os.umask(0o077)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor in (1, 2):
        os.dup2(output.descriptor, descriptor)
    os.close(output.descriptor)
    sys.stdout, sys.stderr = (
        os.fdopen(descriptor, "w", buffering=1, encoding="utf-8", closefd=False)
        for descriptor in (1, 2)
    )
    # It makes many objects that live to its end: Python need not look through them so often.
    gc.set_threshold(50_000, 20)
    from dbt.artifacts.schemas.run import RunExecutionResult
    from dbt.cli.exceptions import DbtUsageException
    from dbt.cli.main import dbtRunner

    done = dbtRunner().invoke(arguments)
    if isinstance(done.exception, DbtUsageException):
        sys.stderr.write(f"{done.exception}\n")
    if results and isinstance(done.result, RunExecutionResult):
        done.result.write(str(results))
    sys.exit(2 if done.exception else int(not done.success))
