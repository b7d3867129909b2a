"""A PostgreSQL that Stageline did not make: a server of the user's, or data of an old version."""

import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from stageline import postgres_install as install

PASSWORD = "plain-password"


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@dataclass
class PlainServer:
    """A server on 127.0.0.1 with a superuser ``postgres`` and nothing else.

    Attributes:
        data: Its data folder; made by `create`.
        version: Major version.
        port: TCP port.
    """

    data: Path
    version: int = 16
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Makes the data folder."""
        who = install.account(self.data)
        password = self.data.with_name("password")
        self.data.mkdir(mode=0o700)
        password.write_text(PASSWORD)
        if who is not None:
            os.chown(self.data, who.uid, who.gid)
            os.chown(password, who.uid, who.gid)
        subprocess.run(
            [
                install.programs(who, self.version) / "initdb",
                *("-D", self.data),
                *("-U", "postgres"),
                *("-A", "scram-sha-256"),
                *("-E", "UTF8"),
                "--locale=C",
                "--no-sync",
                f"--pwfile={password}",
            ],
            check=True,
            capture_output=True,
            cwd="/",
            env=install.environment(),
            **install.run_as(who),
        )
        password.unlink()

    def start(self) -> None:
        """Starts it; `session` waits until it answers."""
        who = install.account(self.data)
        self.process = subprocess.Popen(
            [
                install.programs(who, self.version) / "postgres",
                *("-D", self.data),
                *("-p", str(self.port)),
                *("-c", "unix_socket_directories="),
                *("-c", "fsync=off"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env=install.environment(),
            **install.run_as(who),
        )

    def kill(self) -> None:
        """Ends it as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def wait(self) -> None:
        """Waits until somebody else has stopped it."""
        assert self.process is not None
        self.process.wait(timeout=30)

    def session(self, dbname: str = "postgres") -> psycopg.Connection[Any]:
        """A session of the superuser, in autocommit mode."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return psycopg.connect(
                    host="127.0.0.1",
                    port=self.port,
                    user="postgres",
                    password=PASSWORD,
                    dbname=dbname,
                    autocommit=True,
                )
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
