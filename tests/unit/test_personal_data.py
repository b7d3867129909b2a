"""What log lines may not hold."""

import pytest

from stageline.personal_data import frames, mask, masked


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("no login for olena.k+crm@shop.example.ua here", "no login for *** here"),
        ("call +380 (67) 123-45-67 now", "call *** now"),
        ("call 0671234567", "call ***"),
        ("status 22P05, 3 of 100 events", "status 22P05, 3 of 100 events"),
        ("at 2026-03-04T09", "at 2026-03-04T09"),
        ("", ""),
    ],
)
def test_addresses_and_numbers_of_people_are_masked(text: str, wanted: str) -> None:
    assert masked(text) == wanted


def test_only_free_text_of_a_line_is_masked() -> None:
    line = {"error": "a@b.example", "delivery_id": "123456789012", "bytes": 1234567890123}
    assert mask(None, "info", dict(line)) == line | {"error": "***"}


def test_frames_tell_where_and_never_what() -> None:
    try:
        raise ValueError("Key (email)=(a@b.example)")
    except ValueError as error:
        found = frames(error.__traceback__)
    assert len(found) == 1
    assert found[0].endswith("test_frames_tell_where_and_never_what")
    assert "example" not in str(found)
