"""Tokens, HTTP Basic and address lists."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.hook.auth import (
    AddressError,
    address_allowed,
    basic_auth_matches,
    looks_like_token,
    new_token,
    parse_networks,
)
from router.routing.known import token_hash


def basic(credentials: str, charset: str = "utf-8") -> str:
    return "Basic " + base64.b64encode(credentials.encode(charset)).decode()


# ---- tokens


def test_tokens_are_long_different_and_need_no_escaping() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    for token in tokens:
        assert len(base64.urlsafe_b64decode(token)) * 8 >= 128
        assert looks_like_token(token)


def test_a_token_is_stored_as_its_sha256() -> None:
    assert token_hash("abc") == hashlib.sha256(b"abc").hexdigest()
    assert token_hash("\ud800") != token_hash("\ud801")


@pytest.mark.parametrize("text", ["", "short", "x" * 15, "x" * 129, "x" * 16 + "/", "x" * 16 + "é", "x" * 16 + "\n"])
def test_what_cannot_be_a_token_is_told_by_its_look(text: str) -> None:
    assert not looks_like_token(text)


@given(st.text())
def test_no_text_breaks_the_token_functions(text: str) -> None:
    looks_like_token(text)
    assert len(token_hash(text)) == 64


# ---- HTTP Basic


@pytest.mark.parametrize(
    "header",
    [
        basic("pbx:s3cret"),
        basic("pbx:s3cret").replace("Basic ", "basic   "),
        basic("pbx:s3cret").replace("Basic", "BASIC"),
        f"  {basic('pbx:s3cret')}  ",
        basic("pbx:s3cret").rstrip("="),
    ],
)
def test_the_right_credentials_match_however_they_are_written(header: str) -> None:
    assert basic_auth_matches(header, "pbx:s3cret")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic",
        "Basic ",
        "Basic !!!!",
        "Basic é",
        basic("pbx:s3cre"),
        basic("pbx:s3cret "),
        basic("pbx:S3cret"),
        basic("PBX:s3cret"),
        basic(":s3cret"),
        basic("pbx"),
        basic("pbx:s3cret").replace("Basic", "Bearer"),
        "pbx:s3cret",
    ],
)
def test_anything_else_does_not_match(header: str | None) -> None:
    assert not basic_auth_matches(header, "pbx:s3cret")


@pytest.mark.parametrize("charset", ["utf-8", "latin-1"])
def test_a_password_matches_in_the_charset_of_the_client(charset: str) -> None:
    assert basic_auth_matches(basic("pbx:café", charset), "pbx:café")


def test_a_cyrillic_password_matches_in_utf_8_and_in_the_windows_charset() -> None:
    assert basic_auth_matches(basic("pbx:пароль"), "pbx:пароль")
    assert basic_auth_matches(basic("pbx:пароль", "cp1251"), "pbx:пароль")


def test_a_question_mark_stands_for_no_letter() -> None:
    assert not basic_auth_matches(basic("pbx:??????"), "pbx:пароль")


def test_a_password_may_hold_a_colon() -> None:
    assert basic_auth_matches(basic("pbx:a:b"), "pbx:a:b")
    assert not basic_auth_matches(basic("pbx:a"), "pbx:a:b")


@pytest.mark.parametrize("header", [None, "", basic(""), basic(":"), basic("pbx:s3cret")])
def test_an_empty_expectation_matches_nobody(header: str | None) -> None:
    assert not basic_auth_matches(header, "")


@given(st.text(min_size=1), st.sampled_from(["utf-8", "latin-1", "cp1251"]))
def test_what_a_client_can_encode_matches(credentials: str, charset: str) -> None:
    try:
        header = basic(credentials, charset)
    except UnicodeEncodeError:
        return
    assert basic_auth_matches(header, credentials)


@given(st.text() | st.text().map(lambda text: f"Basic {text}"), st.text())
def test_no_header_breaks_the_check(header: str, expected: str) -> None:
    assert isinstance(basic_auth_matches(header, expected), bool)


def test_every_comparison_is_made_in_constant_time_even_without_header(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    real = hmac.compare_digest

    def record(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(hmac, "compare_digest", record)
    for header in (None, "Bearer x", "Basic !", basic("pbx:wrong"), basic("pbx:s3cret")):
        compared.clear()
        basic_auth_matches(header, "pbx:s3cret")
        assert len(compared) == 3
        assert {len(one) for one, _ in compared} == {32}


# ---- addresses


@pytest.mark.parametrize(
    ("remote", "allowed"),
    [
        ("203.0.113.7", True),
        ("203.0.113.255", True),
        ("203.0.114.1", False),
        ("198.51.100.9", True),
        ("198.51.100.8", False),
        ("::ffff:203.0.113.7", True),
        ("::ffff:203.0.114.7", False),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("fe80::1%eth0", True),
        (" 203.0.113.7 ", True),
        ("::ffff:192.0.2.200", True),
        ("192.0.2.200", True),
        ("192.0.2.1", False),
        ("", False),
        (None, False),
        ("unix", False),
        ("203.0.113.7, 10.0.0.1", False),
        ("203.0.113.07", False),
    ],
)
def test_an_address_is_allowed_by_the_networks_of_the_list(remote: str | None, allowed: bool) -> None:
    networks = parse_networks(
        ["203.0.113.0/24", " 198.51.100.9 ", "2001:db8::/32", "fe80::/10", "::ffff:192.0.2.128/121"]
    )
    assert address_allowed(remote, networks) is allowed


@pytest.mark.parametrize("remote", ["203.0.113.7", "::1", "", None, "nonsense"])
def test_an_empty_list_allows_everybody(remote: str | None) -> None:
    assert address_allowed(remote, ())


def test_everything_of_one_version_is_not_everything_of_the_other() -> None:
    assert not address_allowed("2001:db8::1", parse_networks(["0.0.0.0/0"]))
    assert address_allowed("203.0.113.7", parse_networks(["0.0.0.0/0"]))


def test_host_bits_in_a_range_do_no_harm() -> None:
    assert address_allowed("10.9.9.9", parse_networks(["10.0.0.5/8"]))


@pytest.mark.parametrize("text", ["pbx.example.com", "203.0.113.300", "203.0.113.0/33", "", "203.0.113.1-9"])
def test_an_entry_that_is_no_address_is_refused_by_name_with_a_remedy(text: str) -> None:
    with pytest.raises(AddressError) as refused:
        parse_networks(["203.0.113.7", text])
    assert refused.value.value == text
    assert f"{text!r} is not an address; write one such as 203.0.113.7" in str(refused.value)


@given(st.text() | st.ip_addresses().map(str))
def test_no_remote_address_breaks_the_check(remote: str) -> None:
    assert isinstance(address_allowed(remote, parse_networks(["203.0.113.0/24"])), bool)
