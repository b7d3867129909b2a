"""Salesforce's REST API as contract salesforce describes it: sign-in, describe, query, queryAll."""

import base64
import bisect
import json
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import Any
from urllib.parse import urlencode

from tests.fakes.crm_server import Call, CrmServer, Limit, Reply
from tests.fakes.soql import Query, SoqlError, comparable, parse, sort_key

CLIENT_ID, CLIENT_SECRET = "3MVG9.app", "secret-of-the-app"
#: Name, whether it closes a deal, whether it wins it, and its usual probability.
STAGES = (
    ("Prospecting", False, False, 10),
    ("Qualification", False, False, 25),
    ("Negotiation/Review", False, False, 90),
    ("Closed Won", True, True, 100),
    ("Closed Lost", True, False, 0),
)
#: Name of a status of cases, and whether it closes one.
CASE_STATUSES = (("New", False), ("On Hold", False), ("Working", False), ("Closed", True))
_LONGEST_URL = 16_384
#: When a record last changed.
_STAMP = "SystemModstamp"
_DRAFT, _SENT = "5", "3"
_WHEN = {"CreatedDate": "datetime", "LastModifiedDate": "datetime", "SystemModstamp": "datetime"}
_WHOSE = {"Id": "id", "OwnerId": "reference", "IsDeleted": "boolean", **_WHEN}
_SEEN = {"LastViewedDate": "datetime"}
OBJECTS: dict[str, dict[str, str]] = {
    "Opportunity": {
        **_WHOSE,
        **_SEEN,
        "Name": "string",
        "AccountId": "reference",
        "RecordTypeId": "reference",
        "StageName": "picklist",
        "Type": "picklist",
        "LeadSource": "picklist",
        "NextStep": "string",
        "ForecastCategory": "picklist",
        "Amount": "currency",
        "ExpectedRevenue": "currency",
        "Probability": "percent",
        "CurrencyIsoCode": "picklist",
        "CloseDate": "date",
        "IsClosed": "boolean",
        "IsWon": "boolean",
        "LastStageChangeDate": "datetime",
        "Region__c": "string",
        "Site__Street__s": "string",
        "Site__c": "address",
        "Scan__c": "base64",
    },
    "OpportunityHistory": {
        "Id": "id",
        "OpportunityId": "reference",
        "CreatedById": "reference",
        "StageName": "picklist",
        "Amount": "currency",
        "ExpectedRevenue": "currency",
        "Probability": "percent",
        "CurrencyIsoCode": "picklist",
        "ForecastCategory": "picklist",
        "PrevAmount": "currency",
        "PrevCloseDate": "date",
        "CloseDate": "date",
        "CreatedDate": "datetime",
        "SystemModstamp": "datetime",
        "IsDeleted": "boolean",
    },
    "OpportunityFieldHistory": {
        "Id": "id",
        "OpportunityId": "reference",
        "CreatedById": "reference",
        "Field": "picklist",
        "DataType": "picklist",
        "OldValue": "anyType",
        "NewValue": "anyType",
        "CreatedDate": "datetime",
        "IsDeleted": "boolean",
    },
    "OpportunityStage": {
        "Id": "id",
        "MasterLabel": "string",
        "ApiName": "string",
        "Description": "string",
        "IsActive": "boolean",
        "IsClosed": "boolean",
        "IsWon": "boolean",
        "SortOrder": "int",
        "DefaultProbability": "percent",
        "ForecastCategory": "picklist",
        "ForecastCategoryName": "picklist",
        "SystemModstamp": "datetime",
    },
    "User": {
        "Id": "id",
        "Name": "string",
        "FirstName": "string",
        "LastName": "string",
        "Email": "string",
        "UserType": "picklist",
        "UserRoleId": "reference",
        "ManagerId": "reference",
        "ProfileId": "reference",
        "IsActive": "boolean",
        "CreatedDate": "datetime",
        "SystemModstamp": "datetime",
    },
    "Lead": {
        **_WHOSE,
        "Name": "string",
        "Company": "string",
        "Status": "picklist",
        "LeadSource": "picklist",
        "MasterRecordId": "reference",
        "IsConverted": "boolean",
        "ConvertedDate": "date",
        "ConvertedOpportunityId": "reference",
        "ConvertedAccountId": "reference",
        "ConvertedContactId": "reference",
    },
    "Task": {
        **_WHOSE,
        "WhatId": "reference",
        "WhoId": "reference",
        "Subject": "string",
        "Status": "picklist",
        "Type": "picklist",
        "TaskSubtype": "picklist",
        "CallDisposition": "string",
        "CallDurationInSeconds": "int",
        "IsClosed": "boolean",
        "IsArchived": "boolean",
        "ActivityDate": "date",
        "CompletedDateTime": "datetime",
    },
    "Event": {
        **_WHOSE,
        "WhatId": "reference",
        "WhoId": "reference",
        "Subject": "string",
        "Type": "picklist",
        "IsAllDayEvent": "boolean",
        "IsArchived": "boolean",
        "IsChild": "boolean",
        "IsGroupEvent": "boolean",
        "IsRecurrence": "boolean",
        "StartDateTime": "datetime",
        "EndDateTime": "datetime",
    },
    "Case": {
        **_WHOSE,
        "CaseNumber": "string",
        "MasterRecordId": "reference",
        "AccountId": "reference",
        "Status": "picklist",
        "Priority": "picklist",
        "Origin": "picklist",
        "IsClosed": "boolean",
        "IsEscalated": "boolean",
        "ClosedDate": "datetime",
    },
    "CaseStatus": {
        "Id": "id",
        "MasterLabel": "string",
        "ApiName": "string",
        "IsClosed": "boolean",
        "IsDefault": "boolean",
        "SortOrder": "int",
    },
    "CaseHistory": {
        "Id": "id",
        "CaseId": "reference",
        "CreatedById": "reference",
        "Field": "picklist",
        "DataType": "picklist",
        "OldValue": "anyType",
        "NewValue": "anyType",
        "CreatedDate": "datetime",
        "IsDeleted": "boolean",
    },
    "EmailMessage": {
        "Id": "id",
        "ParentId": "reference",
        "CreatedById": "reference",
        "Status": "picklist",
        "AutomationType": "picklist",
        "Incoming": "boolean",
        "MessageDate": "datetime",
        "Subject": "string",
        "TextBody": "textarea",
        "FromAddress": "string",
        "IsDeleted": "boolean",
        **_WHEN,
    },
    "CaseComment": {
        "Id": "id",
        "ParentId": "reference",
        "CreatedById": "reference",
        "CommentBody": "textarea",
        "IsPublished": "boolean",
        "IsDeleted": "boolean",
        **_WHEN,
    },
    "Organization": {"Id": "id", "Name": "string"},
}
_PREFIXES = dict(
    zip(
        OBJECTS,
        (
            *("006", "008", "017", "01J", "005", "00Q", "00T", "00U", "500"),
            *("0CS", "0CH", "02s", "00a", "00D"),
        ),
        strict=True,
    )
)
_COMPOUND = {"FirstName": "Name", "LastName": "Name", "Site__Street__s": "Site__c"}

Record = dict[str, Any]


@dataclass
class _Place:
    """Where a client is in the answer to a query."""

    query: Query
    ids: list[str]
    size: int


class FakeSalesforce(CrmServer):
    """A fake organisation.

    Attributes:
        records: The truth: object -> id -> record, its fields as the API gives them.
        fields: Object -> field -> type.
        hidden: Fields that the user may not see, as (object, field).
        absent: Objects that the organisation does not have.
        page_size: Most records of a page; pages may be shorter.
        most_matches: A query that finds more takes too long.
        usage: Calls of the last 24 hours, and how many there may be.
        budget_is_used_up: Whether those are used up, whatever it says of them.
        keeps_budget: Whether they are once it says so.
        rotates: Whether a refresh token is worth one use.
        refresh_token: The one that is valid.
        customer: A user who is none of the organisation's own people.
        session_calls: Calls after which a session is over.
    """

    def __init__(self, seed: int = 1, *, limit: Limit | None = None) -> None:
        super().__init__(limit)
        self.records: dict[str, dict[str, Record]] = {name: {} for name in OBJECTS}
        self.fields = {name: dict(fields) for name, fields in OBJECTS.items()}
        self.hidden: set[tuple[str, str]] = set()
        self.absent: set[str] = set()
        self.page_size = 2_000
        self.most_matches: int | None = None
        self.usage = (18, 100_000)
        self.budget_is_used_up = self.keeps_budget = False
        self.rotates = True
        self.refresh_token = "refresh-0"
        self.account_id = "00D000000004711AAA"
        self.session_calls: int | None = None
        self._left_of_session: int | None = None
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._numbers = dict.fromkeys(OBJECTS, 0)
        self._places: dict[str, _Place] = {}
        self._sessions = self._queries = 0
        self._written: dict[str, dict[str, tuple[str, ...]]] = {}
        self._by_change: dict[str, list[Record]] = {}
        self._places_of: dict[str, dict[str, int]] = {}
        self._naming: dict[tuple[str, str], dict[Any, list[Record]]] = {}
        for position, (name, is_closed, is_won, probability) in enumerate(STAGES, 1):
            self._add(
                "OpportunityStage",
                datetime(2024, 1, 1, tzinfo=UTC),
                MasterLabel=name,
                ApiName=name,
                IsActive=True,
                IsClosed=is_closed,
                IsWon=is_won,
                SortOrder=position,
                DefaultProbability=float(probability),
                ForecastCategory="Closed" if is_won else "Omitted" if is_closed else "Pipeline",
                ForecastCategoryName="Pipeline",
            )
        for number in range(4):
            self._add(
                "User",
                datetime(2024, 1, 1, tzinfo=UTC),
                Name=f"Rep {number}",
                FirstName="Rep",
                LastName=str(number),
                Email=f"rep{number}@example.com",
                UserType="Standard",
                IsActive=number != 3,
            )
        self._reps = list(self.records["User"])
        self.customer = self._add(
            "User", datetime(2024, 1, 1, tzinfo=UTC), Name="Buyer", UserType="CspLitePortal"
        )
        for position, (name, is_closed) in enumerate(CASE_STATUSES, 1):
            self._add_plain(
                "CaseStatus",
                datetime(2024, 1, 1, tzinfo=UTC),
                MasterLabel=name,
                ApiName=name,
                IsClosed=is_closed,
                IsDefault=position == 1,
                SortOrder=position,
            )

    @contextmanager
    def changing(self) -> Iterator[None]:
        """What happens in this block is seen by clients at once: nothing is answered meanwhile."""
        with self._lock:
            yield

    # What happens in the organisation

    def populate(self, deals: int = 200) -> None:
        """An organisation some months old: so many deals, and what belongs to them."""
        mass_update = _now() - timedelta(days=3)
        for number in range(deals):
            deal = self.add_deal(
                created_at=_now()
                - timedelta(seconds=self._random.randrange(5 * 86_400, 2 * 10**7)),
                moves=self._random.randrange(4),
            )
            if number % 3 == 0:  # a mass update gives thousands of records one instant
                deal["SystemModstamp"] = _instant(mass_update)
            if number % 4 == 0:
                self.add_lead(deal if number % 8 == 0 else None)
            if number % 2 == 0:
                self.add_task(deal, self._since(deal))
            if number % 5 == 0:
                self.add_event(deal, self._since(deal))
                self.live_through(self.add_case(self._lately() - timedelta(days=9)))

    def add_deal(self, created_at: datetime | None = None, moves: int = 0) -> Record:
        """A deal, at its first stage, that then moved so often."""
        at = created_at or self._lately()
        deal = self._add(
            "Opportunity",
            at,
            Name=f"Deal {self._random.randrange(10**6)}",
            AccountId="001000000000001AAA",
            RecordTypeId=self._random.choice([None, "012000000000001AAA"]),
            StageName="Prospecting",
            Amount=self._random.choice([None, 0.0, self._random.randrange(100, 10**6) / 100]),
            Probability=10.0,
            CurrencyIsoCode=self._random.choice(["EUR", "USD"]),
            CloseDate=f"{(at + timedelta(days=30)).date()}",
            IsClosed=False,
            IsWon=False,
            ForecastCategory="Pipeline",
            Region__c=self._random.choice([None, "North", "South"]),
        )
        deal["Account"] = {"attributes": {"type": "Account"}, "Name": "Acme"}
        self._snapshot(deal, at, None)
        for _ in range(moves):
            at += timedelta(seconds=self._random.randrange(1, 86_400))
            self.move(deal, at=at)
        return deal

    def move(self, deal: Record, stage: str | None = None, at: datetime | None = None) -> None:
        """The deal goes to a stage, which may close it or open it again."""
        listed = [each for each in self.records["OpportunityStage"].values() if each["IsActive"]]
        wanted = [each for each in listed if stage is None or each["MasterLabel"] == stage]
        new = self._random.choice(wanted)
        at = self._next(deal, at)
        before = dict(deal)
        deal.update(
            StageName=new["MasterLabel"],
            IsClosed=new["IsClosed"],
            IsWon=new["IsWon"],
            Probability=new["DefaultProbability"],
            ForecastCategory=new["ForecastCategory"],
            LastStageChangeDate=_instant(at),
        )
        if new["IsClosed"] and self._random.random() < 0.7:  # people set it, or leave it
            deal["CloseDate"] = f"{at.date()}"
        self._touch(deal, at)
        self._snapshot(deal, at, before)

    def change(self, deal: Record, at: datetime | None = None, **values: Any) -> None:
        """Fields of a deal change; those that the history keeps leave a snapshot."""
        at = self._next(deal, at)
        before = dict(deal)
        deal.update(values)
        self._touch(deal, at)
        if {"Amount", "Probability", "CloseDate"} & set(values):
            self._snapshot(deal, at, before)
        if "OwnerId" in values:
            for old, new, kind in (
                (before["OwnerId"], deal["OwnerId"], "EntityId"),
                ("Rep of before", "Rep of now", "Text"),
            ):
                self._add_plain(
                    "OpportunityFieldHistory",
                    at,
                    OpportunityId=deal["Id"],
                    Field="Owner",
                    DataType=kind,
                    OldValue=old,
                    NewValue=new,
                )

    def reassign(self, deal: Record) -> None:
        """The deal gets another owner."""
        others = [each for each in self._reps if each != deal["OwnerId"]]
        self.change(deal, OwnerId=self._random.choice(others))

    def delete(self, record: Record) -> None:
        """A record goes to the recycle bin; the history of a deal is removed with it."""
        self._touch(record, self._next(record, None))
        record["IsDeleted"] = True
        history = self.records["OpportunityHistory"]
        for each in [each for each in history.values() if each["OpportunityId"] == record["Id"]]:
            del history[each["Id"]]

    def merge(self, lead: Record, into: Record) -> None:
        """A lead is merged into another one."""
        self.delete(lead)
        lead["MasterRecordId"] = into["Id"]

    def purge(self, of: str, record: Record) -> None:
        """A record leaves the recycle bin, or is deleted for good at once; nothing tells of it."""
        del self.records[of][record["Id"]]
        history = self.records["OpportunityHistory"]
        for each in [each for each in history.values() if each["OpportunityId"] == record["Id"]]:
            del history[each["Id"]]

    def rename_stage(self, old: str, new: str) -> None:
        """A stage gets another label; nothing else changes with it."""
        for each in self.records["OpportunityStage"].values():
            if each["MasterLabel"] == old:
                each["MasterLabel"] = new

    def add_field(self, of: str, name: str, kind: str, value: Any) -> None:
        """An object gets another field, which has a value in all records; none is touched."""
        self.fields[of][name] = kind
        for each in self.records[of].values():
            each[name] = value

    def add_lead(self, deal: Record | None = None) -> Record:
        """A lead, converted to a deal where one is given."""
        at = _read(deal["CreatedDate"]) if deal else self._lately()
        return self._add(
            "Lead",
            at - timedelta(hours=3),
            Name="Somebody",
            Company="Acme",
            Status="Closed - Converted" if deal else "Open - Not Contacted",
            IsConverted=deal is not None,
            ConvertedDate=f"{at.date()}" if deal else None,
            ConvertedOpportunityId=deal["Id"] if deal else None,
        )

    def add_task(self, deal: Record, at: datetime | None = None) -> Record:
        """A call about a deal, open or done."""
        at, is_closed = at or self._lately(), self._random.random() < 0.6
        return self._add(
            "Task",
            at,
            WhatId=deal["Id"],
            Subject="Call",
            Status="Completed" if is_closed else "Not Started",
            TaskSubtype="Call",
            CallDurationInSeconds=90,
            IsClosed=is_closed,
            IsArchived=self._random.random() < 0.2,
            ActivityDate=f"{at.date()}",
            CompletedDateTime=_instant(at) if is_closed else None,
        )

    def add_event(self, deal: Record, at: datetime | None = None) -> Record:
        """A meeting about a deal, with a copy for somebody who was invited."""
        at = at or self._lately()
        values = {
            "WhatId": deal["Id"],
            "Subject": "Meeting",
            "IsArchived": False,
            "StartDateTime": _instant(at),
            "EndDateTime": _instant(at + timedelta(hours=1)),
        }
        self._add("Event", at, **values, IsChild=True)
        return self._add("Event", at, **values, IsChild=False)

    def add_case(self, created_at: datetime | None = None) -> Record:
        """A case that nobody has looked at."""
        return self._add(
            "Case",
            created_at or self._lately(),
            CaseNumber=f"{self._numbers['Case']:08}",
            Status="New",
            Priority=self._random.choice(["High", "Medium", "Low", None]),
            IsClosed=False,
            IsEscalated=False,
        )

    def live_through(self, case: Record) -> None:
        """A case is waited for, answered, closed and opened again, or some of it, over days."""
        at = _read(case["CreatedDate"])
        for _ in range(self._random.randrange(6)):
            at += timedelta(seconds=self._random.randrange(1, 86_400))
            match self._random.randrange(6):
                case 0:
                    self.send_email(case, at, is_incoming=self._random.random() < 0.5)
                case 1:
                    self.send_email(case, at, status=_DRAFT)
                case 2:
                    by = self._random.choice([self.customer["Id"], *self._reps])
                    self.comment(case, at, by, is_published=self._random.random() < 0.7)
                case _:
                    self.set_status(case, self._random.choice(CASE_STATUSES)[0], at)

    def set_status(self, case: Record, status: str, at: datetime | None = None) -> None:
        """A case gets a status, which may close it or open it again."""
        before, at = case["Status"], self._next(case, at)
        if status == before:
            return
        listed = self.records["CaseStatus"].values()
        is_closed = any(each["IsClosed"] for each in listed if each["MasterLabel"] == status)
        closed_at = (case["ClosedDate"] or _instant(at)) if is_closed else None
        case.update(Status=status, IsClosed=is_closed, ClosedDate=closed_at)
        self._touch(case, at)
        self._add_plain(
            "CaseHistory",
            at,
            CaseId=case["Id"],
            CreatedById=case["OwnerId"],
            Field="Status",
            DataType="DynamicEnum",
            OldValue=before,
            NewValue=status,
        )

    def send_email(
        self, case: Record, at: datetime, *, is_incoming: bool = False, status: str = _SENT
    ) -> Record:
        """An email about a case, which is not a change of the case."""
        return self._add(
            "EmailMessage",
            at,
            ParentId=case["Id"],
            CreatedById=case["OwnerId"],
            Status=status,
            Incoming=is_incoming,
            MessageDate=_instant(at),
            Subject="Your question",
            TextBody="What a customer reads.",
            FromAddress="somebody@example.com",
        )

    def comment(self, case: Record, at: datetime, by: str, *, is_published: bool = True) -> Record:
        """A user comments on a case, which is not a change of the case."""
        return self._add(
            "CaseComment",
            at,
            ParentId=case["Id"],
            CreatedById=by,
            CommentBody="What a customer reads.",
            IsPublished=is_published,
        )

    def deals(self) -> list[Record]:
        """The deals that are not deleted."""
        return [each for each in self.records["Opportunity"].values() if not each["IsDeleted"]]

    def forget_places(self) -> None:
        """No query can be gone on with."""
        self._places.clear()

    def end_session(self) -> None:
        """The access token that was last given is no longer valid."""
        self.token = "a-session-that-is-over"

    # How it is asked

    def login(self, *, refresh: bool) -> str:
        """What is stored of an app that signs in."""
        parts = [CLIENT_ID, CLIENT_SECRET, self.refresh_token]
        self.token = "nobody-has-signed-in"
        return ":".join(parts if refresh else parts[:2])

    def is_authentic(self, call: Call) -> bool:
        if call.path == "/services/oauth2/token":
            return True
        if self._left_of_session is not None:
            self._left_of_session -= 1
            if self._left_of_session < 0:
                return False
        return call.headers.get("authorization") == f"Bearer {self.token}"

    def unauthentic(self) -> Reply:
        return _error(401, "INVALID_SESSION_ID", "Session expired or invalid")

    def keep_limits(self) -> None:
        super().keep_limits()
        self.keeps_budget = True

    def over_limit(self, _wait: float, _kind: str) -> Reply:
        message = "ConcurrentRequests (Concurrent API Requests) Limit exceeded."
        return _error(403, "REQUEST_LIMIT_EXCEEDED", message)

    def answer(self, call: Call) -> Reply:
        if call.path == "/services/oauth2/token":
            return self._sign_in(call)
        if self.budget_is_used_up or (self.keeps_budget and self.usage[0] >= self.usage[1]):
            return _error(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")
        used, most = self.usage
        self.usage = (used + 1, most)
        if len(call.path) + len(urlencode(call.query)) + 400 > _LONGEST_URL:
            return Reply(414, b"<html>URI too long</html>")
        try:
            reply = self._answer(call)
        except SoqlError as error:
            reply = _error(400, error.code, str(error))
        info = {"Sforce-Limit-Info": f"api-usage={self.usage[0]}/{most}"}
        return Reply(reply.status, reply.body, info)

    def _answer(self, call: Call) -> Reply:
        match call.path.strip("/").split("/"):
            case ["services", "data", "v66.0", "sobjects", name, "describe"]:
                if name not in self.fields or name in self.absent:
                    message = "The requested resource does not exist"
                    return _error(404, "NOT_FOUND", message)
                return Reply(body={"name": name, "fields": list(self._described(name))})
            case ["services", "data", "v66.0", ("query" | "queryAll") as kind]:
                return self._query(call, kind)
            case ["services", "data", "v66.0", "query", place]:
                locator, _, start = place.rpartition("-")
                if locator not in self._places:
                    return _error(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
                return self._page(locator, int(start))
        return _error(404, "NOT_FOUND", "The requested resource does not exist")

    def _sign_in(self, call: Call) -> Reply:
        app = base64.b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if call.headers.get("authorization") != f"Basic {app}":
            return Reply(400, {"error": "invalid_client_id", "error_description": "client"})
        asked = call.body
        answer = {"instance_url": self.url, "token_type": "Bearer", "issued_at": "1"}
        match asked.get("grant_type"):
            case "client_credentials":
                pass
            case "refresh_token" if asked.get("refresh_token") == self.refresh_token:
                if self.rotates:
                    self.refresh_token = f"refresh-{self._sessions + 1}"
                    answer["refresh_token"] = self.refresh_token
            case _:
                description = "expired access/refresh token"
                return Reply(400, {"error": "invalid_grant", "error_description": description})
        self._sessions += 1
        self.token = f"session-{self._sessions}"
        self._left_of_session = self.session_calls
        return Reply(body={**answer, "access_token": self.token})

    def _described(self, of: str) -> Iterator[Record]:
        for name, kind in self._visible(of).items():
            yield {
                "name": name,
                "type": kind,
                "compoundFieldName": _COMPOUND.get(name),
                "relationshipName": "Account" if name == "AccountId" else None,
            }

    def _visible(self, of: str) -> dict[str, str]:
        return {
            name: kind for name, kind in self.fields[of].items() if (of, name) not in self.hidden
        }

    def _query(self, call: Call, kind: str) -> Reply:
        known = {name: self._visible(name) for name in self.fields if name not in self.absent}
        known["Opportunity"]["Account.Name"] = "string"
        query = parse(call.query["q"], known)
        self.records["Organization"] = {self.account_id: {"Id": self.account_id, "Name": "Kiosks"}}
        found = [
            record
            for record in self._candidates(query)
            if (kind == "queryAll" or not (record.get("IsDeleted") or record.get("IsArchived")))
            and query.where.test(record)
        ]
        found.sort(key=lambda record: sort_key(record, query.order, known[query.of]))
        found = found[: query.limit]
        if self.most_matches is not None and len(found) > self.most_matches:
            message = "Your query request was running for too long."
            return _error(400, "QUERY_TIMEOUT", message)
        options = re.search("batchSize=([0-9]+)", call.headers.get("sforce-query-options", ""))
        size = min(int(options[1]) if options else 2_000, self.page_size)
        self._queries += 1
        locator = f"01g{self._queries:015}"  # never that of another query
        self._places[locator] = _Place(query, [record["Id"] for record in found], size)
        return self._page(locator, 0)

    def _candidates(self, query: Query) -> Iterable[Record]:
        """The records that a query may find; while nothing changes, far from all of them."""
        if not self._written or query.of not in self._by_change:
            return self.records[query.of].values()
        for name, values in query.where.allowed.items():
            if self.fields[query.of].get(name) in ("id", "reference"):
                named = self._naming_by(query.of, name)
                return [record for value in sorted(values) for record in named.get(value, ())]
        known = self._by_change[query.of]
        if _STAMP not in query.where.least or _STAMP not in self.fields[query.of]:
            return known
        least = query.where.least[_STAMP]
        start = bisect.bisect_left(known, least, key=lambda record: _read(record[_STAMP]))
        return known[start:]

    def _naming_by(self, of: str, name: str) -> dict[Any, list[Record]]:
        """The records of an object by the value of a field."""
        if (of, name) not in self._naming:
            found: dict[Any, list[Record]] = {}
            for record in self.records[of].values():
                found.setdefault(record.get(name), []).append(record)
            self._naming[of, name] = found
        return self._naming[of, name]

    def _page(self, locator: str, start: int) -> Reply:
        place = self._places[locator]
        of = place.query.of
        end = start + self._random.randint(max(1, place.size // 2), place.size)
        ids = [each for each in place.ids[start:end] if each in self.records[of]]
        is_done = end >= len(place.ids)
        body: dict[str, Any] = {"totalSize": len(place.ids), "done": is_done}
        if not is_done:
            body["nextRecordsUrl"] = f"/services/data/v66.0/query/{locator}-{end}"
        if ids and of in self._written:
            text = ", ".join(self._as_written(place.query, ids))
            return Reply(body=f'{json.dumps(body)[:-1]}, "records": [{text}]}}'.encode())
        shown = [_shown(place.query, self.records[of][each]) for each in ids]
        return Reply(body={**body, "records": shown or None})

    def be_still(self) -> None:
        write = lru_cache(maxsize=2**18, typed=True)(
            lambda name, value: f'"{name}": {json.dumps(value)}'
        )
        for of, records in self.records.items():
            if not records:
                continue
            names = [name for name in self.fields[of] if name != "Id"]
            # Of a related record there is its name alone.
            beside = ["Account"] if of == "Opportunity" else []
            self._written[of] = {
                each: (
                    json.dumps({"attributes": _attributes(of, record), "Id": each})[1:-1],
                    *(write(name, record.get(name)) for name in names),
                    *(f'"{name}": {json.dumps(record.get(name))}' for name in beside),
                )
                for each, record in records.items()
            }
            self._places_of[of] = {name: at for at, name in enumerate([*names, *beside], 1)}
            self._by_change[of] = sorted(
                records.values(), key=lambda r: (str(r.get(_STAMP)), r["Id"])
            )

    def _as_written(self, query: Query, ids: Sequence[str]) -> Iterator[str]:
        """What `_shown` gives, of records that were written down."""
        places = self._places_of[query.of]
        asked = dict.fromkeys(name.partition(".")[0] for name in query.fields if name != "Id")
        chosen = itemgetter(0, *(places[name] for name in asked), 0)
        written = self._written[query.of]
        for each in ids:
            yield f"{{{', '.join(chosen(written[each])[:-1])}}}"

    # How records are made

    def _add(self, of: str, at: datetime, **values: Any) -> Record:
        record = self._add_plain(of, at, **values)
        if "OwnerId" in self.fields[of]:
            record["OwnerId"] = self._random.choice(self._reps)
        for name in ("LastModifiedDate", "SystemModstamp"):
            if name in self.fields[of]:
                record[name] = _instant(at)
        return record

    def _add_plain(self, of: str, at: datetime, **values: Any) -> Record:
        self._numbers[of] += 1
        record: Record = dict.fromkeys(self.fields[of])
        record |= {"Id": f"{_PREFIXES[of]}{self._numbers[of]:012}AAA", "CreatedDate": _instant(at)}
        if "IsDeleted" in record:
            record["IsDeleted"] = False
        record |= values
        self.records[of][record["Id"]] = record
        return record

    def _snapshot(self, deal: Record, at: datetime, before: Mapping[str, Any] | None) -> None:
        kept = ("StageName", "Amount", "Probability", "ForecastCategory", "CloseDate")
        self._add_plain(
            "OpportunityHistory",
            at,
            OpportunityId=deal["Id"],
            **{name: deal[name] for name in (*kept, "CurrencyIsoCode", "ExpectedRevenue")},
            PrevAmount=before["Amount"] if before else None,
            PrevCloseDate=before["CloseDate"] if before else None,
            SystemModstamp=_instant(at),
        )

    def _touch(self, record: Record, at: datetime) -> None:
        record["LastModifiedDate"] = record["SystemModstamp"] = _instant(at)

    def _next(self, record: Record, at: datetime | None) -> datetime:
        """When a record changes next: some minutes ago at most, as transactions commit late."""
        return max(at or self._lately(), _read(record["LastModifiedDate"]))

    def _since(self, deal: Record) -> datetime:
        """Some time between the beginning of a deal and yesterday."""
        begun, end = _read(deal["CreatedDate"]), _now() - timedelta(days=1)
        return begun + timedelta(seconds=self._random.randrange(int((end - begun).total_seconds())))

    def _lately(self) -> datetime:
        return _now() - timedelta(seconds=self._random.randrange(2, 300))


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _instant(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def _read(written: str) -> datetime:
    read = comparable(written, "datetime")
    assert isinstance(read, datetime)
    return read


def _shown(query: Query, record: Record) -> Record:
    """What a query shows of a record; of a related one there is null where there is none."""
    shown: Record = {"attributes": _attributes(query.of, record)}
    for name in query.fields:
        first, _, _ = name.partition(".")
        shown[first] = record.get(first)
    return shown


def _attributes(of: str, record: Record) -> Record:
    return {"type": of, "url": f"/{record['Id']}"}


def _error(status: int, code: str, message: str) -> Reply:
    return Reply(status, [{"message": message, "errorCode": code}])
