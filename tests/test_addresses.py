"""Addresses as proxies write them, and what counts as one by the throttles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.addresses import UNREADABLE, client_address, networks_of


@pytest.mark.parametrize(
    ("written", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:51234", "203.0.113.7"),
        (" 203.0.113.7 ", "203.0.113.7"),
        ('"203.0.113.7:80"', "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("[::ffff:203.0.113.7]:443", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ('"[2001:db8::1]:443"', "2001:db8::1"),
        ("2001:0DB8:0::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("unknown", "unknown"),
        ("", ""),
        (None, ""),
    ],
)
def test_reads_an_address_as_proxies_write_it(written: str | None, address: str) -> None:
    assert client_address(written) == address


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("203.0.113.7", ["203.0.113.7", "203.0.113.0/24"]),
        ("203.0.113.7:4711", ["203.0.113.7", "203.0.113.0/24"]),
        ("::ffff:203.0.113.7", ["203.0.113.7", "203.0.113.0/24"]),
        ("2001:db8:1:2:3:4:5:6", ["2001:db8:1:2::/64", "2001:db8:1::/56", "2001:db8:1::/48"]),
        ("[2001:db8:1:2::99]:443", ["2001:db8:1:2::/64", "2001:db8:1::/56", "2001:db8:1::/48"]),
        ("", [UNREADABLE]),
        ("unix:", [UNREADABLE]),
        ("_hidden", [UNREADABLE]),
    ],
)
def test_a_home_counts_as_one_and_so_does_what_surrounds_it(address: str, names: list[str]) -> None:
    assert [network.name for network in networks_of(address)] == names


@given(st.text() | st.ip_addresses().map(str))
def test_nothing_breaks_it(text: str) -> None:
    assert networks_of(text)
    assert len(client_address(text)) <= 64
    assert client_address(client_address(text)) == client_address(text)
