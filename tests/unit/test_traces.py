"""Where traces go, and where they do not. What is in them is tested with refreshes."""

import subprocess
import sys
import time

import pytest
from opentelemetry import trace

from jobs import traces
from stageline.errors import StagelineError
from tests.plain_postgres import free_port

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def test_without_an_address_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    before = trace.get_tracer_provider()
    traces.begin()
    assert trace.get_tracer_provider() is before
    with traces.span("refresh") as span:
        assert not span.is_recording()


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(StagelineError, match=r"Install `stageline\[traces\]`, or unset"):
        traces.begin()


def test_a_collector_that_is_away_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINT, f"http://127.0.0.1:{free_port()}")
    script = (
        "from jobs import traces; traces._GRACE = 0.1; traces.begin()\n"
        "with traces.span('refresh'): pass\n"
    )
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0
    assert time.monotonic() - started < 20
    assert "Traceback" not in ended.stderr
    assert all(line.startswith('{"') for line in ended.stderr.splitlines())
