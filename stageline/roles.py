"""The roles of the database and what they may do to it as a whole.

Roles belong to a server and rights on a database are lost when it is cloned or restored, so neither
can be a matter of a migration alone: both are put right here, each time, before and after the
migrations. What a role may do inside the schemas is in the migrations.
"""

from typing import Any

import psycopg
from psycopg import sql

from stageline.database import ROLES, SESSION
from stageline.errors import StagelineError

#: Database roles, without the owner (whoever runs the migrations).
WORKERS: tuple[str, ...] = tuple(f"stageline_{role}" for role in ROLES if role != "owner")

#: Number of the advisory lock under which a database is set up and migrated.
LOCK = 7_226_001

#: Oldest server that Stageline runs on.
LEAST_VERSION = 15

_CREATE = """
do $$
declare
    worker text;
begin
    foreach worker in array array[
        'stageline_receiver', 'stageline_loader', 'stageline_transformer',
        'stageline_jobs', 'stageline_reader'
    ]
    loop
        if to_regrole(worker) is null then
            begin
                execute format('create role %I nologin', worker);
            exception when duplicate_object or unique_violation then
                null; -- another database of this server was quicker
            end;
        end if;
        if not pg_has_role(current_user, worker, 'usage') then
            execute format('grant %I to %I', worker, current_user);
        end if;
    end loop;
end
$$
"""

_RIGHTS = """
do $$
declare
    here text := current_database();
begin
    execute format('revoke connect, temporary on database %I from public', here);
    execute format(
        'grant connect on database %I to stageline_receiver, stageline_loader,'
        ' stageline_transformer, stageline_jobs, stageline_reader', here
    );
    execute format('grant temporary on database %I to stageline_transformer', here);
end
$$
"""


def ensure(connection: psycopg.Connection[Any]) -> None:
    """Creates the roles that are missing, as far as the login may. Call it in a transaction.

    Raises:
        StagelineError: the server is too old, the database does not hold every letter, or an
            administrator has to run something first.
    """
    if connection.info.server_version < LEAST_VERSION * 10000:
        raise StagelineError(
            f"The server at {connection.info.host}:{connection.info.port} is PostgreSQL"
            f" {connection.info.server_version // 10000}; Stageline needs {LEAST_VERSION} or newer."
        )
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise StagelineError(
            f"Database `{connection.info.dbname}` has the encoding {encoding}; Stageline needs"
            " UTF8. An administrator makes one with:"
            " create database NAME encoding 'UTF8' template template0"
        )
    lacking = blockers(connection)
    if lacking:
        raise StagelineError(
            f"The login `{connection.info.user}` cannot set up database"
            f" `{connection.info.dbname}`: {'; '.join(lacking)}. Nothing was changed."
            " Give the following to an administrator of that server, then run `stageline up` again"
            " (`stageline up --print-sql` prints it alone):\n\n"
            + administrator_sql(connection.info.dbname, connection.info.user)
        )
    if missing(connection):
        connection.execute(_CREATE)
    set_role_defaults(connection)


def missing(connection: psycopg.Connection[Any]) -> list[str]:
    """Roles that do not exist, or whose rights the login does not have."""
    rows = connection.execute(
        """
        select name
        from unnest(%s::text[]) as name
        where case
            when to_regrole(name) is null then true
            else not (
                pg_has_role(current_user, to_regrole(name), 'usage')
                and pg_has_role(
                    current_user,
                    to_regrole(name),
                    case when current_setting('server_version_num')::int >= 160000
                        then 'set' else 'member' end
                )
            )
        end
        order by name
        """,
        [list(WORKERS)],
    )
    return [name for (name,) in rows]


def blockers(connection: psycopg.Connection[Any]) -> list[str]:
    """What keeps the login from setting the database up; empty if nothing does."""
    row = connection.execute(
        """
        select
            rolsuper,
            rolcreaterole,
            has_database_privilege(current_database(), 'create') as may_create,
            pg_has_role(current_user, datdba, 'usage') as owns
        from pg_roles
        cross join pg_database
        where rolname = current_user and datname = current_database()
        """
    ).fetchone()
    assert row is not None  # noqa: S101 - a session always has a role and a database
    superuser, may_create_roles, may_create_schemas, owns = row
    found: list[str] = []
    lacking = missing(connection)
    if lacking and not superuser:
        foreign = connection.execute(
            """
            select name
            from unnest(%s::text[]) as name
            where to_regrole(name) is not null
                and current_setting('server_version_num')::int >= 160000
                and not pg_has_role(current_user, to_regrole(name), 'usage with admin option')
            order by name
            """,
            [lacking],
        ).fetchall()
        if not may_create_roles:
            found.append(f"it may not create roles, and lacks {', '.join(lacking)}")
        elif foreign:
            names = ", ".join(name for (name,) in foreign)
            found.append(f"{names} belong to somebody else and were not granted to it")
    if not may_create_schemas:
        found.append("it may not create schemas")
    if not owns and not rights_are_set(connection):
        found.append("it does not own the database and so cannot set who may connect")
    return found


def set_role_defaults(connection: psycopg.Connection[Any]) -> None:
    """Pins the session settings that go with each role, where the login may.

    Where it may not, nothing is lost for Stageline's own sessions: they send the settings
    themselves (`stageline.database`).
    """
    rows = connection.execute(
        """
        select r.rolname || ' ' || unnest(s.setconfig)
        from pg_db_role_setting as s
        inner join pg_roles as r on s.setrole = r.oid
        where s.setdatabase = 0
        """
    )
    pinned = {setting for (setting,) in rows}
    for role, values in SESSION.items():
        for name, value in values.items():
            if f"stageline_{role} {name}={value}" in pinned:
                continue
            statement = sql.SQL("alter role {} set {} = {}").format(
                sql.Identifier(f"stageline_{role}"), sql.Identifier(name), sql.Literal(value)
            )
            try:
                with connection.transaction():
                    connection.execute(statement)
            except psycopg.errors.InsufficientPrivilege:
                continue


def rights_are_set(connection: psycopg.Connection[Any]) -> bool:
    """Whether connecting and temporary tables are kept to those who need them."""
    row = connection.execute(
        """
        select
            not exists (
                select from pg_database
                cross join lateral aclexplode(coalesce(datacl, acldefault('d', datdba))) as acl
                where datname = current_database()
                    and acl.grantee = 0
                    and acl.privilege_type in ('CONNECT', 'TEMPORARY')
            )
            and (
                select count(*) = cardinality(%(workers)s::text[])
                from unnest(%(workers)s::text[]) as name
                where to_regrole(name) is not null
                    and has_database_privilege(name, current_database(), 'connect')
            )
            and case when to_regrole('stageline_transformer') is null then false
                else has_database_privilege(
                    'stageline_transformer', current_database(), 'temporary'
                ) end
        """,
        {"workers": list(WORKERS)},
    ).fetchone()
    return bool(row and row[0])


def set_rights(connection: psycopg.Connection[Any]) -> None:
    """Keeps connecting to the roles (and the owner), temporary tables to the transformer."""
    if not rights_are_set(connection):
        connection.execute(_RIGHTS)


def administrator_sql(dbname: str, login: str) -> str:
    """What an administrator has to run so that ``login`` can set ``dbname`` up; repeatable."""
    database, user = sql.Identifier(dbname), sql.Identifier(login)
    roles = sql.SQL(", ").join(sql.Identifier(name) for name in WORKERS)
    names = sql.SQL(", ").join(sql.Literal(name) for name in WORKERS)
    text = sql.SQL("""\
-- Run as a superuser, or as a role that may create roles and owns the database.
do $$
declare
    worker text;
begin
    foreach worker in array array[{names}]
    loop
        if to_regrole(worker) is null then
            execute format('create role %I nologin', worker);
        end if;
        if current_setting('server_version_num')::int >= 160000 then
            execute format('grant %I to %I with inherit true, set true', worker, {login});
        else
            execute format('grant %I to %I', worker, {login});
        end if;
    end loop;
end
$$;
grant create, connect on database {database} to {user};
revoke connect, temporary on database {database} from public;
grant connect on database {database} to {roles};
grant temporary on database {database} to stageline_transformer;
{defaults}
""").format(
        names=names,
        login=sql.Literal(login),
        database=database,
        user=user,
        roles=roles,
        defaults=sql.SQL("\n").join(
            sql.SQL("alter role {} set {} = {};").format(
                sql.Identifier(f"stageline_{role}"), sql.Identifier(name), sql.Literal(value)
            )
            for role, values in SESSION.items()
            for name, value in values.items()
        ),
    )
    return text.as_string(None)
