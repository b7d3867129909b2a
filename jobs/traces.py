"""Traces of refreshes for OpenTelemetry: a span for each run, step and node.

They go where the variables of OpenTelemetry say (``OTEL_EXPORTER_OTLP_ENDPOINT`` and its kin), and
nowhere where none is set. Spans hold names and outcomes, and no words of errors: these may repeat
what was read.
"""

import atexit
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.trace import Status, StatusCode

from jobs.build import BuildReport
from stageline.errors import StagelineError
from stageline.progress import Forward

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

#: Either says where traces go.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

#: Seconds that a process waits in its end for what is still to be sent.
_GRACE = 2.0

_NANOSECONDS = 1_000_000_000


def begin() -> None:
    """Sends the spans of this process, if a variable says where to.

    Raises:
        StagelineError: one does, and the packages for it are not installed.
    """
    if not any(os.environ.get(name) for name in _ENDPOINTS):
        return
    sending = provider()
    trace.set_tracer_provider(sending)
    atexit.register(_end, sending)


def provider() -> "TracerProvider":
    """What sends spans, as the variables of OpenTelemetry say it.

    Raises:
        StagelineError: the packages for it are not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError:
        raise StagelineError(
            f"{_ENDPOINTS[1]} is set, and what sends traces is not installed. Install"
            " `stageline[traces]`, or unset the variable."
        ) from None
    logging.getLogger("opentelemetry").handlers = [Forward("traces", logging.WARNING)]
    name = os.environ.get("OTEL_SERVICE_NAME") or "stageline"
    made = TracerProvider(resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made


def _end(sending: "TracerProvider") -> None:
    """Sends what is left, for a moment: nothing is held up by who does not answer."""
    thread = threading.Thread(target=sending.shutdown, daemon=True)
    thread.start()
    thread.join(_GRACE)


@contextmanager
def span(name: str, **attributes: str | int) -> Iterator[trace.Span]:
    """A span around the block, an error where that raises."""
    tracer = trace.get_tracer("stageline")
    with tracer.start_as_current_span(
        name,
        attributes={f"stageline.{key}": value for key, value in attributes.items()},
        record_exception=False,
        set_status_on_exception=False,
    ) as current:
        try:
            yield current
        except BaseException:
            fail(current)
            raise


def fail(of: trace.Span) -> None:
    """Marks a span as one that went wrong."""
    of.set_status(Status(StatusCode.ERROR))


def add_nodes(report: BuildReport) -> None:
    """Adds a span for each node that ran, to the present span."""
    tracer = trace.get_tracer("stageline")
    for node in report.nodes:
        if node.started_at is None:
            continue
        began = int(node.started_at.timestamp() * _NANOSECONDS)
        made = tracer.start_span(
            f"{node.kind} {node.name}",
            start_time=began,
            attributes={"stageline.kind": node.kind, "stageline.status": node.status},
        )
        if not node.is_good:
            fail(made)
        made.end(began + int(node.seconds * _NANOSECONDS))
