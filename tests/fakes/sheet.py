"""A sheet behind an address: a CSV, as people keep their deals in one."""

import csv
import io
import random
from datetime import UTC, datetime, timedelta

from tests.fakes.crm_server import Call, CrmServer, Limit, Reply

_STAGES = {"Lead": "open", "Offer": "open", "Talks": "open", "Won": "won", "Lost": "lost"}


class FakeSheet(CrmServer):
    """A fake sheet.

    Attributes:
        rows: The truth, by id: column -> what is written there.
        again: More rows, behind those.
        is_published: It is open to everyone, and to nobody who shows a token.
        leads: Path -> where it leads to.
    """

    def __init__(self, seed: int = 1, *, limit: Limit | None = None) -> None:
        super().__init__(limit)
        self.rows: dict[str, dict[str, str]] = {}
        self.again: list[dict[str, str]] = []
        self.is_published = False
        self.leads: dict[str, str] = {}
        self._random = random.Random(seed)  # noqa: S311 - no secret

    @property
    def base_url(self) -> str:
        return f"{self.url}/deals.csv"

    def populate(self, deals: int = 20) -> None:
        """A sheet of so many deals."""
        for number in range(1, deals + 1):
            at = datetime.now(UTC) - timedelta(days=self._random.randrange(60))
            stage = self._random.choice(list(_STAGES))
            self.rows[str(number)] = {
                "opportunity_id": str(number),
                "name": f'Roof, "big" {number}',
                "stage": stage,
                "status": _STAGES[stage].title(),
                "amount": f"{self._random.randrange(100, 90_000)}.50",
                "currency": "EUR",
                "win_probability": self._random.choice(["", "0.25", "1"]),
                "created_at": at.strftime("%Y-%m-%d %H:%M:%S"),
                "expected_close_date": f"{at + timedelta(days=90):%Y-%m-%d}",
                "region": "North",
            }

    def is_authentic(self, call: Call) -> bool:
        shown = call.headers.get("authorization")
        return shown is None if self.is_published else shown == f"Bearer {self.token}"

    def unauthentic(self) -> Reply:
        return Reply(401, b"Unauthorized")

    def over_limit(self, wait: float, _kind: str) -> Reply:
        return Reply(429, b"Too many", {"Retry-After": str(int(wait) + 1)})

    def answer(self, call: Call) -> Reply:
        if call.path in self.leads:
            to = {"Location": self.leads[call.path], "Set-Cookie": "seen=1"}
            return Reply(307, b"Temporary Redirect", to)
        if call.path != "/deals.csv":
            return Reply(404, b"<html>Not found</html>")
        written = io.StringIO()
        rows = [*self.rows.values(), *self.again]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        lines = csv.DictWriter(written, columns or ["opportunity_id"])
        lines.writeheader()
        lines.writerows(rows)
        return Reply(
            body=written.getvalue().encode("utf-8-sig"), headers={"Content-Type": "text/csv"}
        )
