"""What PBXs call a phone, and which configured login that is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.core.model import Agent, Project
from router.core.phones import read_phone

LOGINS = ["ann", "ann-1", "a.b_c-d", "acme_bob", "ann-mob"]


def project(*logins: str, **agents: Agent) -> Project:
    cast = {n: Agent(n, f"Agent {n}", (login,)) for n, login in enumerate(logins, 1)}
    return Project(1, "acme", 1, agents=cast | {agent.id: agent for agent in agents.values()})


def forms(login: str) -> list[str]:
    return [
        login,
        login.upper(),
        f" {login} ",
        f"PJSIP/{login}-00000012",
        f"SIP/{login}",
        f"SIP/{login}-00000abc",
        f"sip/{login}-08c3b590",
        f"SIP/{login}-b7a1",
        f"IAX2/{login}-1234",
        f"Local/{login}@ctx-0001;1",
        f"Local/{login}@from-queue-0000002f;2",
        f"Local/{login}@from-queue/n",
        f"PJSIP/{login}/sip:{login}@10.0.0.5:5060",
        f"sofia/internal/{login}@pbx.example",
        f"user/{login}@pbx.example",
        f"{login}-0000001f",
        f"sip:{login}@pbx.example;transport=tcp",
        f"sips:{login}@pbx.example:5061",
        f"sip:{login}:secret@pbx.example?subject=x",
        f"{login}@pbx.example",
        f"{login}@10.0.0.5:5060",
        f"sip:{login}",
        f"sip:%{ord(login[0]):x}{login[1:]}@pbx.example",
        f"<sip:{login}@pbx.example>",
        f'"Ann, Sales" <sip:{login}@pbx.example:5060;transport=tls>;tag=as1f2e3d',
        f"Ann <sip:{login}@pbx.example>;tag=1",
        f"sip:{login}@pbx.example;tag=as1",
    ]


@pytest.mark.parametrize("login", LOGINS)
def test_every_form_of_a_login_is_that_login(login: str) -> None:
    told = project(*LOGINS)
    for name in forms(login):
        found, agent = told.login_named(name)
        assert (found, agent and agent.sip_logins) == (login, (login,)), name
        assert told.phone_named(name) == login


@given(
    st.from_regex(r"[a-z0-9]([a-z0-9._-]{0,20}[a-z0-9])?", fullmatch=True),
    st.from_regex(r"[0-9a-f]{8}", fullmatch=True),
)
def test_a_channel_is_at_its_peer_whatever_the_peer_is_called(login: str, number: str) -> None:
    assert project(login, "other").login_named(f"PJSIP/{login}-{number}")[0] == login


@pytest.mark.parametrize("login", ["ann@pbx.example", "PJSIP/ann", "sip:ann@pbx.example", "SIP/ann-00000001", "Ann"])
def test_a_login_that_is_configured_so_is_itself(login: str) -> None:
    told = project("ann", login) if login != "Ann" else project("bob", login)
    assert told.login_named(login)[0] == login
    assert told.login_named(login.upper())[0] == login


@pytest.mark.parametrize("login", ["ann@pbx.example", "PJSIP/ann"])
@pytest.mark.parametrize("name", ["ann", "SIP/ann-00000012", "PJSIP/ann", "Local/ann@queue-0001;1", "sip:ann"])
def test_a_login_with_its_host_or_channel_may_be_named_plainly(login: str, name: str) -> None:
    assert project(login, "bob").login_named(name)[0] == login


def test_of_two_hosts_each_has_its_own_ann() -> None:
    told = project("ann@one.example", "ann@two.example")
    assert told.login_named("sip:ann@two.example;transport=tcp")[0] == "ann@two.example"
    assert told.login_named("ann@three.example") == ("ann@three.example", None)
    assert told.login_named("ann") == ("ann", None), "which of the two is not said"
    assert project("ann@one.example").login_named("sip:ann@three.example")[1] is None


@pytest.mark.parametrize(
    "name",
    [
        *("SIP/ann-mob", "PJSIP/ann-mob-00000012", "ann-cafe", "SIP/annabel", "annabel@pbx", "sip:bob@pbx"),
        *("SIP/ann-2", '"ann" <sip:bob@pbx>', "", "@", "/", "SIP/", "sip:", "sip:@pbx", "<>", "-00000012", "x/y/z"),
    ],
)
def test_what_is_somebody_elses_is_not_taken_for_ann(name: str) -> None:
    told = project("ann")
    assert told.login_named(name) == (name, None)
    assert told.phone_named(name) == name


def test_a_number_is_told_without_its_address() -> None:
    for name in ("sip:+380671112233@pbx;user=phone", "+380671112233@pbx", "tel:+380671112233"):
        assert project("ann").login_named(name) == ("+380671112233", None)


def test_who_is_named_by_staff_id_or_name_is_at_the_phone_that_was_offered() -> None:
    ann = Agent(7, "Ann Lee", ("ann", "ann_mob"), staff_id="101")
    told = project("bob", ann=ann)
    for name in ("101", "PJSIP/101-0000001f", "sip:101@pbx", "ann lee"):
        assert told.login_named(name) == ("ann", ann)
        assert told.login_named(name, ["ann_mob"]) == ("ann_mob", ann)


@given(st.text(max_size=600))
def test_no_text_is_too_strange_to_be_read(name: str) -> None:
    readings = read_phone(name).readings
    assert readings[0] == name
    login, agent = project("ann").login_named(name)
    assert project("ann").login_named(login)[1] == agent, "who was named once is named by what was made of it"
