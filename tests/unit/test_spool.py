"""The file in which deliveries wait: on real disks, with real damage."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from webhook_receiver.delivery import Delivery
from webhook_receiver.spool import Spool, SpoolError, check

MEGABYTE = 1024 * 1024


def delivery(number: int, size: int = 10) -> Delivery:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    return Delivery("keycrm", "shop", at, (1, 2), {"a": "é"}, b"%d" % number + b"x" * size, "UTC")


def test_what_was_put_comes_out_in_its_order_and_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", MEGABYTE)
    spool.put([delivery(1), delivery(2)])
    another_process = Spool(tmp_path / "s", MEGABYTE)
    another_process.put([delivery(3)])
    found = spool.first(10, MEGABYTE)
    assert [each for _, each in found] == [delivery(1), delivery(2), delivery(3)]
    assert spool.waiting() == (3, datetime(2026, 3, 1, tzinfo=UTC))
    spool.remove([position for position, _ in found[:2]])
    assert [each for _, each in another_process.first(10, MEGABYTE)] == [delivery(3)]


def test_one_is_given_however_large_and_more_while_they_are_small(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", 4 * MEGABYTE)
    spool.put([delivery(1, 5000), delivery(2, 100), delivery(3, 100), delivery(4, 100)])
    first = spool.first(10, 1000)
    assert len(first) == 1
    spool.remove([first[0][0]])
    assert len(spool.first(10, 250)) == 2
    assert len(spool.first(2, 10_000)) == 2


def test_a_full_spool_takes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", MEGABYTE)
    taken = 0
    with pytest.raises(SpoolError):
        while True:
            spool.put([delivery(taken, 50_000)])
            taken += 1
    with pytest.raises(SpoolError):
        spool.check_writable()
    assert taken > 10
    assert spool.waiting()[0] == taken


def test_a_spool_is_for_its_owner_alone(tmp_path: Path) -> None:
    Spool(tmp_path / "s", MEGABYTE).put([delivery(1)])
    assert (tmp_path / "s").stat().st_mode & 0o077 == 0


def test_a_damaged_spool_is_given_no_more_and_is_put_aside_whole(tmp_path: Path) -> None:
    path = tmp_path / "s"
    spool = Spool(path, 4 * MEGABYTE)
    spool.put([delivery(number, 6000) for number in range(100)])
    spool.close()
    with path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xff" * 4096 * 20)
    with pytest.raises(SpoolError):
        spool.first(100, MEGABYTE)
    with pytest.raises(SpoolError):
        spool.put([delivery(1)])

    check(path)
    (aside,) = tmp_path.glob("s.damaged-*[0-9]")
    assert aside.stat().st_size > 500_000
    anew = Spool(path, MEGABYTE)
    anew.put([delivery(1)])
    assert anew.waiting()[0] == 1


def test_a_sound_spool_is_left_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", MEGABYTE)
    spool.put([delivery(1)])
    check(tmp_path / "s")
    assert list(tmp_path.glob("*damaged*")) == []
    assert spool.waiting()[0] == 1
