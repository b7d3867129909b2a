"""The marked block of ``.env``: everything around it is the user's."""

import io

from dotenv import dotenv_values
from hypothesis import given
from hypothesis import strategies as st

from stageline.dbt_environment import BEGIN, END, with_block

VALUES = {"STAGELINE_DBT_PORT": "54320", "STAGELINE_DBT_ROLE": ""}


def test_the_block_goes_to_the_end_of_a_file_without_one() -> None:
    assert with_block("A=1\n", VALUES) == (
        f"A=1\n{BEGIN}\nSTAGELINE_DBT_PORT='54320'\nSTAGELINE_DBT_ROLE=''\n{END}\n"
    )


def test_the_block_stays_where_it_was_and_keeps_what_is_around_it() -> None:
    before = with_block("A=1\n", {"STAGELINE_DBT_PORT": "1"}) + "B=2\n"
    after = with_block(before, VALUES)
    assert after.startswith(f"A=1\n{BEGIN}\n")
    assert after.endswith(f"{END}\nB=2\n")
    assert after.count(BEGIN) == 1
    assert "'1'" not in after


def test_it_settles() -> None:
    once = with_block("A=1\n", VALUES)
    assert with_block(once, VALUES) == once


def test_a_lost_end_marker_costs_no_line_of_the_user() -> None:
    after = with_block(f"A=1\n{BEGIN}\nOLD=1\nMINE=2\n", VALUES)
    assert "MINE=2" in after
    assert after.count(BEGIN) == after.count(END) == 1


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n$", exclude_categories=["C"]))
)
def test_what_is_written_is_what_dotenv_reads(password: str) -> None:
    text = with_block("", {"PASSWORD": password})
    assert dotenv_values(stream=io.StringIO(text))["PASSWORD"] == password
