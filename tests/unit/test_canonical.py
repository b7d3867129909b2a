"""The canonical stages as the seeds define them."""

import pytest

from stageline.errors import StagelineError
from stageline.settings.canonical import majors, periods, require_sub_key, sub_stages


def test_the_major_stages_stand_in_the_order_of_the_journey() -> None:
    assert [major.major_key for major in majors()] == [
        "LEAD",
        "QUOTE",
        "ORDER",
        "PROCUREMENT",
        "MFG",
        "DELIVERY",
        "PAYMENT",
    ]


def test_every_boundary_is_a_sub_stage_of_its_major_stage() -> None:
    of = {stage.sub_key: stage.major_key for stage in sub_stages()}
    for major in majors():
        assert of[major.entry_sub_key] == of[major.exit_sub_key] == major.major_key


def test_the_periods_of_reports_begin_with_the_shortest() -> None:
    assert periods() == ("7d", "14d", "1m", "3m", "6m", "12m")


def test_a_key_is_found_in_any_case() -> None:
    assert require_sub_key(" quote.sent ") == "QUOTE.SENT"


@pytest.mark.parametrize(
    ("text", "said"), [("MFG.START", "Near it: MFG.STARTED"), ("?", "There are: LEAD.GENERATED, ")]
)
def test_an_unknown_key_is_told_with_those_near_it(text: str, said: str) -> None:
    with pytest.raises(StagelineError) as caught:
        require_sub_key(text)
    assert said in str(caught.value)
