"""The platform's methods as the demo PBX serves them, and every way in which they fail."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
import requests

from simulator.faults import FaultError
from simulator.pbx import DemoPbx

KEY = {"Auth-key": "demo-key"}
SMART = {"project_id": "12345", "token": "demo-token", "withRspDoNotDisturbSips": "false"}


@pytest.fixture
def pbx() -> Iterator[DemoPbx]:
    with DemoPbx() as pbx:
        yield pbx


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers.update(KEY)
        yield session


def get(pbx: DemoPbx, path: str, **params: str) -> requests.Response:
    return requests.get(f"{pbx.url}{path}", params=params, headers=KEY, timeout=60)


def test_online_lists_sip_devices_and_the_variant_lists_smart_phones(pbx: DemoPbx) -> None:
    online = get(pbx, "/sipstatus/online").json()
    assert {"demo_alice", "demo_alice_mob", "demo_bob"} <= set(online)
    assert "demo_grace_web" not in online
    assert get(pbx, "/sipstatus/online", **SMART).json() == ["demo_eve_web", "demo_grace_web"]


def test_offline_and_speaking_logins_are_listed_as_such(pbx: DemoPbx) -> None:
    pbx.set_state("demo_bob", "offline")
    pbx.set_state("demo_carol", "speaking")
    online = get(pbx, "/sipstatus/online").json()
    assert "demo_bob" not in online
    assert "demo_carol" in online
    assert get(pbx, "/sipstatus/speaking").json() == ["demo_carol"]
    pbx.set_state("demo_carol", "idle")
    pbx.set_state("demo_bob", "auto")
    assert get(pbx, "/sipstatus/speaking").json() == []
    assert "demo_bob" in get(pbx, "/sipstatus/online").json()


def test_do_not_disturb_leaves_the_smart_phones_unless_asked_for(pbx: DemoPbx) -> None:
    pbx.set_state("demo_eve_web", "dnd")
    assert get(pbx, "/sipstatus/online", **SMART).json() == ["demo_grace_web"]
    asked = SMART | {"withRspDoNotDisturbSips": "true"}
    assert get(pbx, "/sipstatus/online", **asked).json() == ["demo_eve_web", "demo_grace_web"]


def test_a_wrong_key_is_401_and_a_wrong_project_or_token_403(pbx: DemoPbx) -> None:
    for path in ("/sipstatus/online", "/sipstatus/speaking", "/calls/list"):
        assert requests.get(f"{pbx.url}{path}", timeout=60).status_code == 401
        assert requests.get(f"{pbx.url}{path}", headers={"Auth-key": "x"}, timeout=60).status_code == 401
    assert requests.post(f"{pbx.url}/api/json-rpc", json={}, timeout=60).status_code == 401
    assert get(pbx, "/sipstatus/online", **(SMART | {"token": "x"})).status_code == 403
    assert get(pbx, "/sipstatus/online", **(SMART | {"project_id": "1"})).status_code == 403
    assert get(pbx, "/sipstatus/online", project_id="12345").status_code == 403
    assert get(pbx, "/nowhere").status_code == 404


def ask_staff(pbx: DemoPbx, **changes: object) -> dict[str, object]:
    asked = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "getProjectStaffListAndDirections",
        "params": {"projectId": "12345", "departmentsFullFormat": False},
    } | changes
    response = requests.post(f"{pbx.url}/api/json-rpc", json=asked, headers=KEY, timeout=60)
    assert response.status_code == 200
    answered: dict[str, object] = response.json()
    return answered


def test_the_staff_list_names_people_and_their_logins(pbx: DemoPbx) -> None:
    staff = ask_staff(pbx)["result"]
    assert isinstance(staff, dict)
    alice = staff["101"]
    assert (alice["fio"], alice["staffId"], alice["departments"]) == ("Alice", 101, [1])
    rows = alice["directions"]["main"] + alice["directions"]["additional"]
    assert [row["direction"] for row in rows if row["type"] == "sip"] == ["demo_alice", "demo_alice_mob"]


def test_a_refused_staff_list_comes_with_status_200(pbx: DemoPbx) -> None:
    refused: tuple[dict[str, object], ...] = ({"method": "x"}, {"params": {"projectId": "9"}}, {"params": []})
    for changes in refused:
        answer = ask_staff(pbx, **changes)
        assert "error" in answer
        assert "result" not in answer


def test_the_call_log_gives_the_asked_fields_of_the_asked_days(pbx: DemoPbx) -> None:
    days = {"export_type": "json", "from": "2020-01-01 00:00:00", "to": "2100-01-01 00:00:00"}
    assert get(pbx, "/calls/list", **days).json() == []
    record = pbx.call(caller="380501112233", dialed="380443330001", until="end")
    rows = get(pbx, "/calls/list", **days, fields="caller,dst,disposition,call_type,uniqueid").json()
    assert rows == [
        {
            "caller": "380501112233",
            "dst": "380443330001",
            "disposition": "FAILED",
            "call_type": "in",
            "uniqueid": record.call_id,
        }
    ]
    assert get(pbx, "/calls/list", **(days | {"to": "2021-01-01 00:00:00"})).json() == []
    assert get(pbx, "/calls/list", **(days | {"from": "yesterday"})).status_code == 400
    assert get(pbx, "/calls/list", **days, fields="password").status_code == 400


# ---- faults


def logins(pbx: DemoPbx, kind: str) -> requests.Response:
    pbx.faults["online"] = kind
    return get(pbx, "/sipstatus/online")


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_answers_with_a_status_that_is_no_good(pbx: DemoPbx, status: int) -> None:
    response = logins(pbx, f"{status}:retry_after=3")
    assert (response.status_code, response.headers["Retry-After"]) == (status, "3")
    assert get(pbx, "/sipstatus/speaking").status_code == 200, "a fault is of its endpoint alone"


def test_answers_with_bodies_that_are_no_list_of_logins(pbx: DemoPbx) -> None:
    assert "<h1>" in logins(pbx, "html").text
    assert logins(pbx, "empty").json() == []
    del pbx.faults["online"]
    assert "demo_bob" in get(pbx, "/sipstatus/online").json()


def test_lies_differently_each_time(pbx: DemoPbx) -> None:
    everybody = {login for member in pbx.settings.staff for login in member.logins}
    lies = [frozenset(logins(pbx, "lying").json()) for _ in range(8)]
    assert len(set(lies)) > 1
    assert all(lie <= everybody for lie in lies)


def test_hangs_until_the_fault_is_lifted(pbx: DemoPbx) -> None:
    pbx.faults["*"] = "hang"
    with pytest.raises(requests.exceptions.ReadTimeout):
        requests.get(f"{pbx.url}/sipstatus/online", headers=KEY, timeout=0.2)
    pbx.faults.clear()
    assert get(pbx, "/sipstatus/online").status_code == 200


def test_trickles_byte_by_byte(pbx: DemoPbx) -> None:
    began = time.monotonic()
    assert "demo_bob" in logins(pbx, "trickle:bytes_per_second=1000").json()
    assert time.monotonic() - began > 0.08, "some hundred bytes, a millisecond each"


def test_dead_refuses_connections_resets_open_ones_and_comes_back_on_its_port(
    pbx: DemoPbx, session: requests.Session
) -> None:
    assert session.get(f"{pbx.url}/sipstatus/online", timeout=60).status_code == 200
    url = pbx.url
    pbx.faults["*"] = "dead"
    for asking in (session, requests):
        with pytest.raises(requests.exceptions.ConnectionError):
            asking.get(f"{url}/sipstatus/online", headers=KEY, timeout=60)
    assert requests.get(f"{pbx.control_url}/control/report", timeout=60).status_code == 200
    pbx.faults.clear()
    assert pbx.url == url
    assert get(pbx, "/sipstatus/online").status_code == 200


def test_one_dead_endpoint_resets_the_connection(pbx: DemoPbx) -> None:
    with pytest.raises(requests.exceptions.ConnectionError):
        logins(pbx, "dead")
    assert get(pbx, "/sipstatus/speaking").status_code == 200


def test_flaps_between_good_and_bad(pbx: DemoPbx) -> None:
    pbx.faults["online"] = "flapping:period_seconds=0.2,then=500"
    statuses: set[int] = set()
    until = time.monotonic() + 60
    while len(statuses) < 2 and time.monotonic() < until:
        statuses.add(get(pbx, "/sipstatus/online").status_code)
    assert statuses == {200, 500}


def test_a_fault_may_end_by_itself(pbx: DemoPbx) -> None:
    pbx.faults["*"] = "dead:for_seconds=3600"
    with pytest.raises(requests.exceptions.ConnectionError):
        get(pbx, "/sipstatus/online")
    pbx.faults["*"] = "dead:for_seconds=0.1"
    time.sleep(0.2)
    assert get(pbx, "/sipstatus/online").status_code == 200
    assert dict(pbx.faults) == {}


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("explode", "no 'explode'; there are dead, hang"),
        ("slow:ms=fast", "fault ms: must be a number"),
        ("slow:speed=3", "no field 'speed'"),
        ("lying:keep=2", "fault keep: must be from 0 to 1"),
        ("flapping:then=flapping", "cannot flap into flapping"),
    ],
)
def test_a_fault_that_cannot_be_is_refused(pbx: DemoPbx, fault: str, told: str) -> None:
    with pytest.raises(FaultError, match=told):
        pbx.faults["online"] = fault
    with pytest.raises(FaultError, match="no 'onlin'; there are online"):
        pbx.faults["onlin"] = "hang"


# ---- control


def control(pbx: DemoPbx, path: str, body: object = None, **headers: str) -> tuple[int, object]:
    url, data = f"{pbx.url}/control/{path}", None if body is None else json.dumps(body)
    response = requests.request("POST" if data else "GET", url, data=data, headers=headers, timeout=60)
    return response.status_code, response.json()


def test_control_sets_faults(pbx: DemoPbx) -> None:
    assert control(pbx, "faults", {"endpoint": "online", "fault": "slow", "ms": 5})[0] == 200
    assert pbx.faults["online"].ms == 5
    assert control(pbx, "faults", {"endpoint": "speaking", "fault": "429:retry_after=2"})[0] == 200
    status, shown = control(pbx, "faults")
    assert isinstance(shown, dict)
    assert (status, sorted(shown)) == (200, ["online", "speaking"])
    assert control(pbx, "faults", {"endpoint": "online"})[0] == 200
    assert list(pbx.faults) == ["speaking"]
    assert control(pbx, "faults", {"clear": True}) == (200, {})
    status, told = control(pbx, "faults", {"endpoint": "online", "fault": "explode"})
    assert status == 400
    assert "explode" in str(told)


def test_control_can_kill_the_listener_and_is_still_answered(pbx: DemoPbx) -> None:
    assert control(pbx, "faults", {"fault": "dead"})[0] == 200
    with pytest.raises(requests.exceptions.ConnectionError):
        get(pbx, "/sipstatus/online")
    requests.post(f"{pbx.control_url}/control/faults", json={"clear": True}, timeout=60)
    assert get(pbx, "/sipstatus/online").status_code == 200


def test_control_sets_and_shows_agents(pbx: DemoPbx) -> None:
    assert control(pbx, "agents", {"login": "demo_bob", "state": "speaking"})[0] == 200
    states = {"demo_alice": "speaking", "demo_dave": "offline"}
    status, agents = control(pbx, "agents", {"states": states})
    assert status == 200
    assert isinstance(agents, dict)
    shown = {login: agents[login]["state"] for login in ("demo_alice", "demo_alice_mob", "demo_bob", "demo_dave")}
    assert shown == {
        "demo_alice": "talking",
        "demo_alice_mob": "talking",  # the same person
        "demo_bob": "talking",
        "demo_dave": "offline",
    }
    assert control(pbx, "agents", {"login": "demo_nobody", "state": "idle"})[0] == 400
    assert control(pbx, "agents", {"login": "demo_bob", "state": "asleep"})[0] == 400


def test_control_places_a_call_and_reports(pbx: DemoPbx) -> None:
    status, call = control(pbx, "calls", {"caller": "+380501112233", "until": "end"})
    assert status == 200
    assert isinstance(call, dict)
    assert (call["caller"], call["outcome"], call["lost_because"]) == ("380501112233", "lost", "no_hook")
    status, report = control(pbx, "report")
    assert isinstance(report, dict)
    assert (status, report["calls"], report["lost"]) == (200, 1, 1)
    unreadable: tuple[object, ...] = ({"calller": "1"}, {"caller": 1}, {"form": "xml"}, {"until": "death"}, [])
    for wrong in unreadable:
        assert control(pbx, "calls", wrong)[0] == 400


def test_control_is_closed_to_pages_in_a_browser(pbx: DemoPbx) -> None:
    assert control(pbx, "report", Origin="http://evil.example")[0] == 403
    assert control(pbx, "nothing")[0] == 404
