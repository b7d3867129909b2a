"""Models that run over temporary tables: each relation is replaced for certain, or not at all."""

from typing import Any

import pytest

from jobs.temporary_models import _queries
from stageline.errors import StagelineError


def node(name: str, query: str | None, *parents: str) -> dict[str, Any]:
    return {
        "unique_id": name,
        "name": name,
        "alias": name,
        "relation_name": None if query == "ephemeral" else f'"db"."kpis"."{name}"',
        "compiled_code": query,
        "depends_on": {"nodes": list(parents)},
    }


def queries(*nodes: dict[str, Any]) -> dict[str, str]:
    return _queries({each["name"]: each for each in nodes}, ["wanted"], ["given", "other"])


GIVEN = (node("given", "select 1"), node("other", "select 1"))
BETWEEN = node("between", 'select * from "db"."kpis"."given" as given', "given")


def test_models_between_read_temporary_tables_and_the_rest_is_read_where_it_is() -> None:
    assert queries(
        *GIVEN,
        node(
            "wanted",
            'select * from "db"."kpis"."between", "db"."kpis"."aside", "db"."kpis"."other"',
            *("between", "aside", "other", "source.of_nobody"),
        ),
        BETWEEN,
        node("aside", None, "given"),
    ) == {
        "between": 'select * from pg_temp."given" as given',
        "wanted": 'select * from pg_temp."between", "db"."kpis"."aside", pg_temp."other"',
    }


def test_what_only_another_kind_of_run_reads_is_not_run() -> None:
    found = queries(
        *GIVEN,
        node("changes", 'select * from "db"."kpis"."given"', "given"),
        node(
            "wanted",
            'select * from "db"."kpis"."given", "db"."kpis"."other"',
            *("given", "other", "changes"),
        ),
    )
    assert list(found) == ["wanted"]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ('select * from "db"."kpis"."given"', "other is given, and nothing reads it"),
        ("select 1", "wanted reads nothing that is given"),
        ("select * from kpis.given", "wanted reads given in a way in which it cannot be replaced"),
        ('select * from "kpis" . "other"', "wanted reads other in a way"),
        ('select * from "db"."kpis"."given", kpis.given', "wanted reads given in a way"),
    ],
)
def test_a_relation_that_cannot_be_replaced_for_certain_is_an_error(query: str, said: str) -> None:
    with pytest.raises(StagelineError, match=said):
        queries(*GIVEN, node("wanted", query, "given", "other"))


def test_a_model_without_a_relation_cannot_be_replaced() -> None:
    with pytest.raises(StagelineError, match="wanted reads between in a way"):
        queries(
            *GIVEN, node("between", "ephemeral", "given"), node("wanted", "select 1", "between")
        )
