"""Where an address that is open to everyone may lead to."""

import ipaddress

import pytest
import requests

from loaders.open_address import _InsideError, _Outside, is_outside
from tests.fakes.sheet import FakeSheet


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connection_into_the_network_of_this_machine_carries_nothing(scheme: str) -> None:
    with FakeSheet() as sheet, requests.Session() as session:
        session.mount(f"{scheme}://", _Outside(from_here=False))
        with pytest.raises(_InsideError):
            session.get(sheet.base_url.replace("http", scheme, 1), timeout=5)
        assert sheet.calls == []


@pytest.mark.parametrize(
    ("address", "outside"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        *((inside, False) for inside in ("127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1")),
        *(
            (inside, False)
            for inside in ("169.254.169.254", "100.64.0.1", "192.0.2.1", "224.0.0.1")
        ),
        *((inside, False) for inside in ("::1", "::", "fd00::1", "fe80::1", "::ffff:10.0.0.1")),
        # Addresses that stand for others: by translation, and through tunnels.
        *((inside, False) for inside in ("64:ff9b::a00:1", "2002:a00:1::1", "2001:0:a00:1::1")),
    ],
)
def test_what_the_internet_is(address: str, outside: bool) -> None:
    assert is_outside(ipaddress.ip_address(address)) is outside
