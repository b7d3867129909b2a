"""Runs the receiver under gunicorn: settings, start, worker processes, logs, stop."""

import logging
import os
import re
import shutil
import socket
from pathlib import Path
from typing import Any

import psycopg
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from stageline.config import settings
from stageline.errors import StagelineError
from stageline.progress import gather_lines, log, write_gathered
from webhook_receiver.accounts import Accounts, closed_projects, open_endpoints
from webhook_receiver.keeper import Keeper
from webhook_receiver.landing import Landing
from webhook_receiver.refusals import Refusals
from webhook_receiver.session import connected, why
from webhook_receiver.spool import Spool, check

#: Seconds that requests under way have to end when the receiver is stopped.
GRACE = 10


class _Log(Logger):  # type: ignore[misc]  # gunicorn carries no types
    """gunicorn's own messages as JSON lines, without anything that a sender wrote."""

    def setup(self, cfg: Any) -> None:  # noqa: ARG002 - gunicorn's signature
        self.error_log.propagate = False
        self.error_log.setLevel(logging.INFO)
        self.error_log.handlers = [_Forward()]
        self.access_log.handlers = [logging.NullHandler()]


class _Forward(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage()
        if words.startswith("Invalid request from ip="):
            words = words.split(":")[0]  # a header, or what was meant to be one, comes after it
        log().log(
            record.levelno,
            re.sub(r"\?\S*", "?...", words),  # a query may hold a token
            process=os.getpid(),
            error=record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None,
        )


class _Gunicorn(BaseApplication):  # type: ignore[misc]
    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        super().__init__()

    def load_config(self) -> None:
        for name, value in self._options.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        return _worker_app()


def spool_of_this_machine() -> Spool:
    """The configured spool."""
    path = settings().spool or settings().home / "spool.sqlite"
    return Spool(path, settings().spool_limit)


def serve() -> None:
    """Takes webhooks until it is told to stop (SIGTERM, SIGINT).

    Raises:
        StagelineError: the address is taken, the spool cannot be written, or the secrets cannot be
            read.
    """
    spool = spool_of_this_machine()
    check(spool.path)
    _announce(spool)
    spool.close()  # SQLite does not survive a fork
    address = _bindable(settings().receiver_host, settings().receiver_port)
    # Read by the metrics library when it is imported, which is in the worker processes.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(_emptied_folder())
    options = {
        "bind": address,
        "worker_class": "webhook_receiver.slow_clients.Worker",
        "workers": settings().receiver_workers,
        "threads": settings().receiver_threads,
        "graceful_timeout": GRACE,
        "keepalive": 5,
        # Nothing that gunicorn would read out of a proxy's headers is used here.
        "forwarded_allow_ips": "",
        "limit_request_fields": 100,
        "limit_request_field_size": 8190,
        "logger_class": _Log,
        "control_socket_disable": True,
        "worker_exit": lambda _server, _worker: write_gathered(),
        "child_exit": _child_exit,
        "proc_name": "stageline receiver",
    }
    _Gunicorn(options).run()


def _emptied_folder() -> Path:
    """Where the processes of this receiver keep their numbers; those of an earlier run are gone."""
    folder = settings().home / "receivers" / str(settings().receiver_port)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _bindable(host: str, port: int) -> str:
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as attempt:
        attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host, port))
        except OSError as error:
            raise StagelineError(
                f"Cannot listen on {address}: {error.strerror}. Choose others with --host and"
                " --port, or STAGELINE_RECEIVER_HOST and STAGELINE_RECEIVER_PORT."
            ) from None
    return address


def _announce(spool: Spool) -> None:
    """Says who may send, and who may not."""
    accounts = Accounts(spool)
    try:
        with connected() as session:
            accounts.refresh(session)
    except (psycopg.Error, StagelineError) as error:
        log().error("postgres is away", reason=why(error))
    if not accounts.are_known:
        log().error("not known who may send: everything is answered 503 until postgres is there")
        return
    for line in open_endpoints(accounts):
        log().info("takes deliveries", account=line)
    for line in closed_projects(accounts):
        log().warning("refuses everything: no check is configured", project=line)
    if not open_endpoints(accounts):
        log().warning("nobody may send yet: see `stageline projects allow --help`")


def _worker_app() -> Flask:
    from webhook_receiver.app import create_app  # imports the metrics library, see `serve`

    spool = spool_of_this_machine()
    accounts, refusals = Accounts(spool), Refusals()
    landing = Landing(spool)
    gather_lines()
    landing.start()
    Keeper(landing, spool, accounts, refusals).start()
    return create_app(landing, accounts, spool, refusals)


def _child_exit(_server: Any, worker: Any) -> None:
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]
