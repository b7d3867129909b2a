"""The entities that Stageline understands, as a file or a source may bring them.

One row of an entity lands in ``raw_files.<entity>`` under these names and types; the staging models
read exactly these. The migrations create the tables, a test holds the two against each other.
"""

from dataclasses import dataclass
from typing import Literal

from stageline.errors import StagelineError

Type = Literal["text", "numeric", "integer", "boolean", "date", "timestamp"]


@dataclass(frozen=True)
class Field:
    """One field of an entity.

    Attributes:
        name: Column name.
        type: How a value is read; ``timestamp`` is an instant (timestamptz, UTC), ``numeric`` is
            exact.
        about: What it means, with its unit.
        required: A row without it is rejected.
        choices: The only values allowed (lower case), where there is such a list.
        least, most: Bounds of a number, inclusive.
    """

    name: str
    type: Type
    about: str
    required: bool = False
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None


@dataclass(frozen=True)
class Entity:
    """One kind of record.

    Attributes:
        name: Table name, and what ``stageline load file --as`` takes.
        about: Its grain.
        key: Names of the fields that identify a row within a project.
        fields: All fields, in column order.
    """

    name: str
    about: str
    key: tuple[str, ...]
    fields: tuple[Field, ...]

    def field(self, name: str) -> Field | None:
        """The field of that name, or None."""
        return next((f for f in self.fields if f.name == name), None)


def _text(name: str, about: str, *, required: bool = False) -> Field:
    return Field(name, "text", about, required=required)


def _instant(name: str, about: str, *, required: bool = False) -> Field:
    return Field(name, "timestamp", about, required=required)


_FACILITY = _text("facility_id", "Facility (site, branch, account) that the row counts for.")
_REP = _text("rep_id", "Sales rep who owns the row.")
_LEAD = _text("lead_id", "Lead that the row belongs to.")
_CURRENCY = _text("currency", "ISO 4217 code of the amount; the project's currency where empty.")
_PROBABILITY = Field("win_probability", "numeric", "Chance of winning, 0 to 1.", least=0, most=1)
_UPDATED = _instant("updated_at", "When the row last changed at its source.")
_DELETED = Field(
    "is_deleted", "boolean", "Deleted at its source; leaves the KPIs, stays in the log."
)


def _amount(required: bool = False) -> Field:
    return Field("amount", "numeric", "Value in `currency`.", required=required)


def _count(name: str, about: str) -> Field:
    return Field(name, "integer", about, least=0)


def _choice(name: str, about: str, *choices: str) -> Field:
    return Field(name, "text", about, required=True, choices=choices)


ENTITIES: dict[str, Entity] = {
    entity.name: entity
    for entity in (
        Entity(
            "leads",
            "One row per lead, with the stage it has reached.",
            ("lead_id",),
            (
                _text("lead_id", "The lead.", required=True),
                _FACILITY,
                _REP,
                _choice("stage", "Stage now.", "lead", "sql", "opportunity", "won", "lost"),
                _amount(),
                _CURRENCY,
                _PROBABILITY,
                _instant("created_at", "When the lead was created.", required=True),
                _instant("sql_at", "When it became sales-qualified."),
                _instant("opportunity_at", "When it became an opportunity."),
                _instant("won_at", "When it was won."),
                _instant("lost_at", "When it was lost."),
                _UPDATED,
                _DELETED,
            ),
        ),
        Entity(
            "opportunities",
            "One row per opportunity (deal).",
            ("opportunity_id",),
            (
                _text("opportunity_id", "The opportunity.", required=True),
                _LEAD,
                _FACILITY,
                _REP,
                _text("name", "What the deal is called."),
                _text("company", "The customer."),
                _text("stage", "Stage as the source names it."),
                _choice("status", "Outcome so far.", "open", "won", "lost"),
                _amount(),
                _CURRENCY,
                _PROBABILITY,
                _instant("created_at", "When the opportunity was created.", required=True),
                _instant("closed_at", "When it was won or lost."),
                Field("expected_close_date", "date", "When it is expected to close."),
                _UPDATED,
                _DELETED,
            ),
        ),
        Entity(
            "tickets",
            "One row per support ticket.",
            ("ticket_id",),
            (
                _text("ticket_id", "The ticket.", required=True),
                _FACILITY,
                _text("agent_id", "Who works on it."),
                _choice("priority", "Urgency.", "critical", "high", "medium", "low"),
                _choice("status", "State now.", "open", "waiting", "resolved", "closed"),
                _instant("created_at", "When it was opened.", required=True),
                _instant("first_response_at", "First answer to the customer."),
                _instant("first_resolved_at", "First resolution; a reopening does not erase it."),
                _instant("last_resolved_at", "Latest resolution, after any reopening."),
                _instant("waiting_since", "Start of the wait that is running now (clock paused)."),
                Field(
                    "waiting_seconds",
                    "integer",
                    "Seconds of waits that ended before the first resolution (clock paused).",
                    least=0,
                ),
                _UPDATED,
                _DELETED,
            ),
        ),
        Entity(
            "satisfaction",
            "One row per survey response.",
            ("response_id",),
            (
                _text("response_id", "The response.", required=True),
                _FACILITY,
                _text("ticket_id", "Ticket that the survey was about."),
                _choice("survey_type", "Kind of survey.", "csat", "nps"),
                Field("score", "integer", "CSAT 1-5 or NPS 0-10.", required=True, least=0, most=10),
                _instant("responded_at", "When the customer answered.", required=True),
                _DELETED,
            ),
        ),
        Entity(
            "outreach",
            "One row per outreach (one attempt to reach one prospect).",
            ("outreach_id",),
            (
                _text("outreach_id", "The outreach.", required=True),
                _REP,
                _FACILITY,
                _LEAD,
                _text("channel", "Channel (email, phone, linkedin ...).", required=True),
                _instant("sent_at", "When it went out.", required=True),
                _instant("responded_at", "First response."),
                _instant("converted_at", "When it led to a conversion (meeting, qualified lead)."),
                _DELETED,
            ),
        ),
        Entity(
            "invoices",
            "One row per invoice.",
            ("invoice_id",),
            (
                _text("invoice_id", "The invoice.", required=True),
                _FACILITY,
                _text("opportunity_id", "Opportunity that it bills."),
                _choice("status", "State now.", "draft", "issued", "paid", "void"),
                _amount(required=True),
                _CURRENCY,
                _instant("issued_at", "When it was issued.", required=True),
                _instant("due_at", "When it is due."),
                _instant("paid_at", "When it was paid in full."),
                _DELETED,
            ),
        ),
        Entity(
            "applications",
            "One row per application that is reviewed for compliance.",
            ("application_id",),
            (
                _text("application_id", "The application.", required=True),
                _FACILITY,
                _choice(
                    "status",
                    "State now.",
                    "submitted",
                    "in_review",
                    "approved",
                    "rejected",
                    "withdrawn",
                ),
                _instant("submitted_at", "When it was submitted.", required=True),
                _instant("due_at", "When a decision is due."),
                _instant("decided_at", "When it was decided."),
                Field("is_compliant", "boolean", "Whether the review found it compliant."),
                _DELETED,
            ),
        ),
        Entity(
            "stage_events",
            "One row per entry of a deal or order into a stage.",
            ("entity_type", "entity_id", "stage_id", "entered_at"),
            (
                _text("entity_type", "Kind of entity, `deal` where empty."),
                _text("entity_id", "The deal or order.", required=True),
                _text("pipeline_id", "Pipeline that the stage belonged to at that time."),
                _text("stage_id", "The stage entered.", required=True),
                _text("stage_group_id", "Group of the stage, where the source has groups."),
                _instant("entered_at", "When it entered the stage.", required=True),
                Field("sequence", "integer", "Order in the source; settles events of one instant."),
            ),
        ),
        Entity(
            "activities",
            "One row per sales activity.",
            ("activity_id",),
            (
                _text("activity_id", "The activity.", required=True),
                _choice("activity_type", "Kind.", "call", "meeting", "email"),
                _REP,
                _LEAD,
                _text("opportunity_id", "Opportunity that it is about."),
                _FACILITY,
                _text("channel", "Channel."),
                _instant("scheduled_at", "When it was planned for."),
                _instant("completed_at", "When it took place."),
                _text("outcome", "What came of it."),
                _text("item_id", "Pipeline item that it is about."),
                _instant("created_at", "When it was booked or written down."),
                _UPDATED,
                _DELETED,
            ),
        ),
        Entity(
            "reps",
            "One row per sales rep and time in a team; who changes teams or is back has several.",
            ("rep_id", "active_from"),
            (
                _text("rep_id", "The rep.", required=True),
                _text("name", "What the rep is called."),
                _text("team_id", "Team that the rep belongs to in that time."),
                Field("active_from", "date", "First day of that time.", required=True),
                Field("active_to", "date", "Last day of it, included; empty while it goes on."),
                _DELETED,
            ),
        ),
        Entity(
            "pipeline_items",
            "One row per pipeline item: a lead on its way to a list-out, or a contact of its list.",
            ("item_id",),
            (
                _text("item_id", "The item.", required=True),
                _LEAD,
                _REP,
                _FACILITY,
                _text("sublist_id", "Sublist that it is a contact of; empty for a main item."),
                _text("stage", "Stage now, as the source names it.", required=True),
                _instant("created_at", "When the item was created.", required=True),
                _instant("call_booked_at", "When the discovery call was booked."),
                _instant("call_conducted_at", "When the discovery call took place."),
                _instant("proposal_at", "When it became a proposal (a soft yes)."),
                _instant("agreement_at", "When it was agreed (a hard yes)."),
                _instant("partner_list_due_at", "When the partner list is to go out."),
                _instant("partner_list_sent_at", "When the partner list went out."),
                _instant("first_sale_at", "First sale from the list."),
                _count("partner_list_size", "Partners that the list went to."),
                _count("total_sales_from_list", "Sales from that list."),
                _instant("closed_at", "When it was lost or given up."),
                _UPDATED,
                _DELETED,
            ),
        ),
        Entity(
            "sublists",
            "One row per sublist: the partner contacts that a list-out spawned.",
            ("sublist_id",),
            (
                _text("sublist_id", "The sublist.", required=True),
                _text("item_id", "Pipeline item whose list-out spawned it.", required=True),
                _text("name", "What it is called."),
                _instant("created_at", "When it was made.", required=True),
                _DELETED,
            ),
        ),
        Entity(
            "sales",
            "One row per sale.",
            ("sale_id",),
            (
                _text("sale_id", "The sale.", required=True),
                _text("item_id", "Pipeline item that it came from."),
                _LEAD,
                _REP,
                _FACILITY,
                _instant("sold_at", "When it was sold.", required=True),
                _amount(required=True),
                _CURRENCY,
                _DELETED,
            ),
        ),
    )
}


def entity_named(name: str) -> Entity:
    """The entity that a user means.

    Raises:
        StagelineError: there is none of that name; says which there are.
    """
    try:
        return ENTITIES[name]
    except KeyError:
        raise StagelineError(
            f"There is no entity {name!r}. There are: {', '.join(ENTITIES)}."
        ) from None
