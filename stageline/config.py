"""The one place where configuration is read.

Environment variables come first, then the project's ``.env``, then the files of the folder that
``STAGELINE_SECRETS_DIR`` names, each called as a variable: so Docker, Kubernetes and systemd hand
secrets over, and no environment shows them.
"""

import os
import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from dotenv import dotenv_values
from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SecretsSettingsSource, SettingsConfigDict

from stageline.errors import StagelineError

#: The checkout: the folder of ``dbt_project.yml``.
PROJECT_ROOT = Path(__file__).resolve().parent.parent


def _host_and_port(text: str) -> str:
    if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[^\s:\[\]]+):[0-9]{1,5}", text):
        raise ValueError("write a host and a port, as 127.0.0.1:8125")
    return text


class Settings(BaseSettings):
    """What a user can configure, one ``STAGELINE_*`` variable each.

    Attributes:
        database_url: A PostgreSQL server of the user's; unset means the embedded one. What it
            leaves out comes from libpq's `PG*` variables; `postgresql://` leaves out all.
        home: Where the embedded server keeps its data, port and passwords.
        port: TCP port to prefer for the embedded server; a free one is taken if it is in use.
        env_file: The file of variables that is read here; a marked block in it is what dbt needs.
        output: Where exports, the demo's files and reports are written.
        sales_pipeline_cache: Where snapshots of the sales pipeline are kept, ``sales_cache`` in
            ``output`` by default; its variable is ``SALES_PIPELINE_CACHE``, as in spec pulls.
        sales_pipeline_source, sales_pipeline_api_key, sales_pipeline_endpoint: An account of a CRM
            that is loaded without being stored, under the names of spec pulls
            (``SALES_PIPELINE_SOURCE`` ...): which CRM, what opens its API, and where that is.
        log_format: ``auto`` (progress on a terminal, else JSON lines), ``json`` or ``console``.
        changed_by: Who a change of settings is recorded for, instead of the login on this machine.
        secret_key: Key under which secrets are encrypted in the database; several with commas in
            between, of which the first encrypts. `stageline projects new-key` makes one.
        receiver_host, receiver_port: Where the webhook receiver listens.
        receiver_workers, receiver_threads: Its processes, and the requests that each takes at once.
        receiver_public_url: Its address as senders know it, which HubSpot signs:
            ``https://hooks.example.com``.
        receiver_trusted_proxies: How many proxies of yours stand before it, each of which adds an
            address to X-Forwarded-For.
        receiver_body_limit: Largest body that it takes, in bytes.
        receiver_deadline: Seconds that a sender has for its request.
        receiver_rate: Requests a second and project, and worker process, above which senders that
            are known to try again are asked to wait.
        receiver_metrics_from: Address ranges, with commas in between, that may read ``/metrics``.
        spool: The file in which deliveries wait while PostgreSQL is away, ``spool.sqlite`` in
            ``home`` by default.
        spool_limit: Largest size of that file, in bytes.
        notifications: The file of the channels that alerts are sent to.
        archive: The file that says when deliveries are archived, and where.
        retention: The file that says what is kept for how long, and when backups are made.
        worker_metrics_host, worker_metrics_port: Where a worker serves ``/metrics`` and
            ``/healthz``; it does not without a port.
        dogstatsd: The agent of Datadog that metrics are sent to by UDP, ``host:port``.
        kpi_refresh_config: The file that says what is refreshed when.
    """

    model_config = SettingsConfigDict(
        env_prefix="STAGELINE_",
        env_ignore_empty=True,
        extra="ignore",
    )

    database_url: SecretStr | None = None
    home: Path = PROJECT_ROOT / ".stageline"
    port: int = 54320
    env_file: Path = PROJECT_ROOT / ".env"
    output: Path = PROJECT_ROOT / "output"
    sales_pipeline_cache: Path | None = Field(default=None, alias="SALES_PIPELINE_CACHE")
    sales_pipeline_source: str | None = Field(default=None, alias="SALES_PIPELINE_SOURCE")
    sales_pipeline_api_key: SecretStr | None = Field(default=None, alias="SALES_PIPELINE_API_KEY")
    sales_pipeline_endpoint: str | None = Field(default=None, alias="SALES_PIPELINE_ENDPOINT")
    log_format: Literal["auto", "json", "console"] = "auto"
    changed_by: str | None = None
    secret_key: SecretStr | None = None
    receiver_host: str = "127.0.0.1"
    receiver_port: int = Field(default=8787, ge=1, le=65535)
    receiver_workers: int = Field(default=2, ge=1, le=64)
    receiver_threads: int = Field(default=8, ge=1, le=256)
    receiver_public_url: str | None = None
    receiver_trusted_proxies: int = Field(default=0, ge=0, le=10)
    receiver_body_limit: int = Field(default=1024 * 1024, ge=1024)
    receiver_deadline: float = Field(default=10.0, ge=0.1)
    receiver_rate: int = Field(default=500, ge=1)
    receiver_metrics_from: str = "127.0.0.0/8,::1/128"
    spool: Path | None = None
    spool_limit: int = Field(default=1024 * 1024 * 1024, ge=1024 * 1024)
    notifications: Path = PROJECT_ROOT / "jobs" / "notifications.yml"
    archive: Path = PROJECT_ROOT / "jobs" / "archive.yml"
    retention: Path = PROJECT_ROOT / "jobs" / "retention.yml"
    worker_metrics_host: str = "127.0.0.1"
    worker_metrics_port: int | None = Field(default=None, ge=1, le=65535)
    dogstatsd: Annotated[str, AfterValidator(_host_and_port)] | None = None
    kpi_refresh_config: Path = PROJECT_ROOT / "jobs" / "kpi_refresh_config.yml"


@cache
def settings() -> Settings:
    """The configuration of this process, read once.

    Raises:
        StagelineError: a variable has a value that cannot be read, or ``.env`` or the folder of
            secrets cannot.
    """
    path, folder = _env_file(), _secrets_folder()
    try:
        return Settings(
            _env_file=path,  # type: ignore[call-arg]  # arguments of its base
            _secrets_dir=folder,
        )
    except PermissionError as error:
        raise StagelineError(
            f"{error.filename or path} belongs to another user. Run `stageline` as that user, or in"
            " a checkout of your own."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise StagelineError(f"{path} cannot be read: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        name = "STAGELINE_" + "_".join(str(part) for part in first["loc"]).upper()
        raise StagelineError(
            f"{name} cannot be read: {first['msg'].lower()}."
            " Correct it in the environment, in .env or among the secrets."
        ) from None


def secret(name: str) -> SecretStr | None:
    """The secret in a variable whose name the user chose; None where it is not set.

    Read anew each time, so that a secret that was put right counts at once.

    Raises:
        StagelineError: ``.env`` or the folder of secrets cannot be read.
    """
    path, folder = _env_file(), _secrets_folder()
    try:
        found = os.environ.get(name) or dotenv_values(path).get(name)
        if not found and folder:
            file = SecretsSettingsSource.find_case_path(folder, name, case_sensitive=False)
            found = file.read_text().strip() if file else None
    except (OSError, UnicodeDecodeError) as error:
        where = getattr(error, "filename", None) or path
        raise StagelineError(f"{where} cannot be read: {type(error).__name__}.") from None
    return SecretStr(found) if found else None


def _secrets_folder() -> Path | None:
    """The folder of ``STAGELINE_SECRETS_DIR``; None where that is not set."""
    named = os.environ.get("STAGELINE_SECRETS_DIR")
    if not named:
        return None
    if not Path(named).is_dir():
        raise StagelineError(
            f"STAGELINE_SECRETS_DIR names {named}, which is no folder. Let it name the one that"
            " holds a file for each secret."
        )
    return Path(named)


def _env_file() -> Path:
    return Path(os.environ.get("STAGELINE_ENV_FILE") or PROJECT_ROOT / ".env")
