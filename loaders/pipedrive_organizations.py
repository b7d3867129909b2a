"""Organizations of Pipedrive: the names of those that deals are about."""

from collections.abc import Iterator
from datetime import timedelta

from loaders.pipedrive_lists import (
    IDS_AT_ONCE,
    OVERLAP,
    PAGE,
    Params,
    by_time,
    number_of,
    pages,
    read_instant,
    written,
)
from loaders.pipedrive_tables import ORGANIZATIONS
from loaders.since import last_look
from loaders.sources import Page, Position, Pull
from stageline.database import connect

ORGANIZATIONS_PATH = "/api/v2/organizations"

#: Names seldom change, and a page of those that did costs as much as one of deals.
_CHANGES_EVERY = timedelta(days=1)

_OF_DEALS = """
select distinct listed.org_id, known.organization_id is not null
from raw_pipedrive.listed_deals as listed
left join raw_pipedrive.organizations as known
    on known.project_id = listed.project_id and known.organization_id = listed.org_id
where
    listed.project_id = %s
    and listed.loaded_xid >= %s::xid8
    and listed.loaded_xid < %s::xid8
    and listed.org_id is not null
order by 1
"""


def organizations(pull: Pull, position: Position | None) -> Iterator[Page]:
    """Those of deals that are not known yet and, once a day, those that changed."""
    last = None if position is None else read_instant(position["at"])
    is_due = last is None or last <= pull.until - _CHANGES_EVERY
    with connect("loader", autocommit=True) as session:
        since = last_look(session, position, anew=pull.is_full or is_due)
        places = [pull.project_id, since.xid, since.before]
        of_deals = session.execute(_OF_DEALS, places).fetchall()
    known = {each for each, is_known in of_deals if is_known}
    new = [each for each, is_known in of_deals if pull.is_full or not is_known]
    for start in range(0, len(new), IDS_AT_ONCE):
        part = new[start : start + IDS_AT_ONCE]
        asked: Params = {"ids": ",".join(part), "limit": PAGE}
        listed = pages(pull.calls, ORGANIZATIONS_PATH, asked)
        found = [record for records, _ in listed for record in records]
        lacking = set(part) - {str(number_of(each)) for each in found} - known
        # One that was never known and is not listed is a row without a name: not asked for again.
        gone = [{"id": each, "is_deleted": True} for each in sorted(lacking)]
        yield Page({ORGANIZATIONS: [*found, *gone]}, expected=len(new))
    if is_due and last is not None:
        ids = {each for each, _ in of_deals}
        for records, _ in by_time(pull.calls, ORGANIZATIONS_PATH, {}, last - OVERLAP, pull.until):
            yield Page({ORGANIZATIONS: [r for r in records if str(number_of(r)) in ids]})
    at = pull.until if is_due or last is None else last
    yield Page(position={"at": written(at), **since.position})
