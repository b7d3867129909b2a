"""What records of HubSpot have to do with each other: companies of deals, deals of activities.

A search tells nothing of associations, so they are asked for by ids, up to 1,000 at once (contract
hubspot 1.7): 1/1000 of a call for a changed deal, call or meeting, and 1/100 for the name of a
company that is new. Which ones are due is looked up in the database, among what was written since
all were asked for (`loaders.since`): those whose last change is not the one that their associations
were read for. So nothing has to be searched for twice, and a load that is cut short leaves the rest
to the next one.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from loaders.ahead import at_once
from loaders.calls import Calls
from loaders.hubspot_api import path, results
from loaders.hubspot_tables import ASSOCIATIONS, CALLS, COMPANIES, DEALS, MEETINGS
from loaders.records import Record, Table
from loaders.since import Since, last_look
from loaders.sources import Page, Position, Pull, Resource
from stageline.database import connect

#: Most ids of a question for associations, and for companies (contract 1.4 and 1.7).
_LINKED, _READ = 1_000, 100

#: Companies get other names without their deals changing: so often all of them are asked for.
_NAMES_EVERY = timedelta(days=1)

#: HubSpot's own kind of association of a deal with the company that it is about first of all.
_PRIMARY = ("HUBSPOT_DEFINED", 5)

_DUE = """
select mine.{id}, to_char(mine.modified_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
from {table} as mine
left join raw_hubspot.associations as known
    on
        known.project_id = mine.project_id
        and known.from_id = mine.{id}
        and known.from_type = %(from_type)s
        and known.to_type = %(to_type)s
where
    mine.project_id = %(project)s
    and mine.loaded_xid >= %(since)s::xid8
    and mine.loaded_xid < %(before)s::xid8
    and not mine.is_gone
    and (
        %(is_full)s
        or known.from_id is null
        or known.read_for is distinct from mine.modified_at
    )
order by mine.{id}
"""

_NAMED = """
select distinct linked.to_id, known.company_id is not null
from raw_hubspot.associations as linked
left join raw_hubspot.companies as known
    on known.project_id = linked.project_id and known.company_id = linked.to_id
where
    linked.project_id = %(project)s
    and linked.loaded_xid >= %(since)s::xid8
    and linked.loaded_xid < %(before)s::xid8
    and linked.to_type = 'companies'
    and linked.to_id is not null
    and (%(asks_all)s or known.company_id is null)
order by 1
"""


def _links(
    links: Sequence[tuple[Table, str]], pull: Pull, position: Position | None
) -> Iterator[Page]:
    """The associations of those records that changed since they were last read.

    Args:
        links: Tables, each with the type of what its records are associated with.
    """
    with connect("loader", autocommit=True) as session:
        since = last_look(session, position, anew=pull.is_full)
        due = [(of.name, to_type, _due(session, pull, since, of, to_type)) for of, to_type in links]
    for from_type, to_type, records in due:
        yield from _read_links(pull, from_type, to_type, records)
    yield Page(position=since.position)


def _due(
    session: psycopg.Connection[Any], pull: Pull, since: Since, of: Table, to_type: str
) -> list[tuple[str, str | None]]:
    """The ids of a table's records whose associations are to be read, each with its last change."""
    query = sql.SQL(_DUE).format(
        id=sql.Identifier(of.key[0]), table=sql.Identifier(of.dataset, of.name)
    )
    return session.execute(
        query,
        {
            "project": pull.project_id,
            "since": since.xid,
            "before": since.before,
            "from_type": of.name,
            "to_type": to_type,
            "is_full": pull.is_full,
        },
    ).fetchall()


def _read_links(
    pull: Pull, from_type: str, to_type: str, due: Sequence[tuple[str, str | None]]
) -> Iterator[Page]:
    where = path("associations", from_type, to_type, "batch", "read")

    def read(calls: Calls, start: int) -> Page:
        part = due[start : start + _LINKED]
        answer = calls.post(where, {"inputs": [{"id": each} for each, _ in part]})
        found = {str(each["from"]["id"]): each.get("to") or [] for each in results(answer)}
        return Page(
            {
                ASSOCIATIONS: [
                    {
                        "from_id": each,
                        "from_type": from_type,
                        "to_type": to_type,
                        "to": _ids(found.get(each, ())),
                        "read_for": changed_at,
                    }
                    for each, changed_at in part
                ]
            },
            expected=len(due),
        )

    starts = iter(range(0, len(due), _LINKED))
    yield from at_once(starts, [partial(read, calls) for calls in pull.at_once])


def _ids(found: Sequence[Record]) -> list[int]:
    """Ids of what a record is associated with: the primary one first, the others as they rise."""
    if len(found) == 1:
        return [int(found[0]["toObjectId"])]
    ranked = sorted((not _is_primary(each), int(each["toObjectId"])) for each in found)
    return [number for _, number in ranked]


def _is_primary(link: Record) -> bool:
    return any(
        (kind.get("category"), kind.get("typeId")) == _PRIMARY
        for kind in link.get("associationTypes") or ()
    )


def _companies(pull: Pull, position: Position | None) -> Iterator[Page]:
    """The companies of deals that are not known yet and, once a day, all of them."""
    last = None if position is None else datetime.fromisoformat(position["at"])
    asks_all = pull.is_full or last is None or last <= pull.until - _NAMES_EVERY
    with connect("loader", autocommit=True) as session:
        since = last_look(session, position, anew=asks_all)
        named = session.execute(
            _NAMED,
            {
                "project": pull.project_id,
                "since": since.xid,
                "before": since.before,
                "asks_all": asks_all,
            },
        ).fetchall()
    ids = [each for each, _ in named]
    known = {each for each, is_known in named if is_known}
    for start in range(0, len(ids), _READ):
        part = ids[start : start + _READ]
        body = {"properties": ["name"], "inputs": [{"id": each} for each in part]}
        there = results(pull.calls.post(path("objects", "companies", "batch", "read"), body))
        # One that is deleted keeps its name; if it was never known, it is not asked for again.
        lacking = set(part) - {str(each["id"]) for each in there} - known
        gone = [{"id": each, "archived": True} for each in sorted(lacking)]
        yield Page({COMPANIES: [*there, *gone]}, expected=len(ids))
    at = pull.until if asks_all or last is None else last
    yield Page(position={"at": at.isoformat(), **since.position})


RESOURCES = (
    Resource(
        "deal companies",
        partial(_links, ((DEALS, "companies"),)),
        "the scope crm.objects.companies.read",
        is_optional=True,
        looks_up=(DEALS,),
    ),
    Resource(
        "activity deals",
        partial(_links, ((CALLS, DEALS.name), (MEETINGS, DEALS.name))),
        "the scopes crm.objects.contacts.read and crm.objects.deals.read",
        is_optional=True,
        looks_up=(CALLS, MEETINGS),
    ),
    Resource(
        "companies",
        _companies,
        "the scope crm.objects.companies.read",
        is_optional=True,
        looks_up=(ASSOCIATIONS,),
    ),
)
