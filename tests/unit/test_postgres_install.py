"""Which account runs PostgreSQL, and what it can reach."""

import os
import pwd
from pathlib import Path

import pytest

from stageline import postgres_install as install
from stageline.errors import StagelineError
from stageline.postgres_install import Account


def accounts(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """A machine on which root runs this and only these other accounts exist."""

    def look_up(name: str) -> pwd.struct_passwd:
        if name not in names:
            raise KeyError(name)
        return pwd.struct_passwd((name, "x", 100 + names.index(name), 500, "", "/", "/bin/sh"))

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", look_up)


def test_root_hands_over_to_postgres_else_to_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts(monkeypatch, "nobody", "postgres")
    assert install.account(tmp_path / "none") == Account("postgres", 101, 500)
    accounts(monkeypatch, "nobody")
    assert install.account(tmp_path / "none") == Account("nobody", 100, 500)
    accounts(monkeypatch)
    with pytest.raises(StagelineError, match="Run `stageline` as an ordinary user"):
        install.account(tmp_path / "none")


def test_a_user_runs_it_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert install.account(tmp_path) is None
    assert install.run_as(None) == {}


@pytest.mark.parametrize(
    ("mode", "may_enter"),
    [(0o755, True), (0o711, True), (0o701, True), (0o700, False), (0o770, False)],
)
def test_one_private_folder_above_is_enough_to_shut_the_way(
    short_folder: Path, mode: int, may_enter: bool
) -> None:
    stranger = Account("stranger", 64_000, 64_000)
    above = short_folder / f"mode{mode:o}"
    (above / "below").mkdir(parents=True)
    above.chmod(mode)
    (above / "below").chmod(0o755)
    assert install.can_enter(above / "below", stranger) is may_enter
    owner = above.stat()
    assert install.can_enter(above / "below", Account("owner", owner.st_uid, owner.st_gid))


def test_the_variables_of_the_user_do_not_reach_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/elsewhere")
    monkeypatch.setenv("STAGELINE_DATABASE_URL", "postgresql://secret")
    assert not [name for name in install.environment() if name.startswith(("PG", "STAGELINE"))]
