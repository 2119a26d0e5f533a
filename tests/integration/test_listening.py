"""The service as it is started by default, asked over IPv4 and over IPv6: who asks is known by one address, however."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
import requests

from router.db import models
from router.db.migrate import upgrade
from simulator.service import Service
from tests.desk import Desk

HOSTS = ["127.0.0.1", "[::1]"]
CONFIG = """
projects:
  - name: acme
    overflow: "380441234567"
    hook: {answer: http, allow_addresses: [127.0.0.1, "::1"]}
    presence: {api_url: "http://127.0.0.1:9", auth_key: key, when_unknown: overflow}
  - name: elsewhere
    overflow: "380441234568"
    hook: {allow_addresses: ["203.0.113.7"]}
    presence: {api_url: "http://127.0.0.1:9", auth_key: key, when_unknown: overflow}
"""


def here(host: str) -> str:
    """The host, if this machine has it."""
    if host == "[::1]":
        with suppress(OSError), closing(socket.socket(socket.AF_INET6)) as trial:
            trial.bind(("::1", 0))
            return host
        pytest.skip("this machine has no IPv6")
    return host


@pytest.fixture(scope="module", params=["production", "development"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("listening")
    url = f"sqlite+pysqlite:///{folder / 'router.db'}"
    made = Service(folder, url, processes=1, ENVIRONMENT=request.param, PRESENCE_KEEPER="off")
    upgrade(made.database)
    made.configure(CONFIG)
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("host", HOSTS)
def test_answers_calls_and_probes_over_both(service: Service, host: str) -> None:
    url = f"http://{here(host)}:{service.port}"
    token = service.hook_url("acme").rpartition("/")[2]
    assert requests.get(f"{url}/healthz", timeout=60).text == "ok\n"
    assert requests.get(f"{url}/readyz", timeout=60).ok
    assert "router_build_info" in requests.get(f"{url}/metrics", timeout=60).text, "asked from this host"
    assert requests.get(f"{url}/sign-in", timeout=60).ok
    answer = requests.post(f"{url}/hook/{token}", json={"uniqueid": f"by {host}"}, timeout=60)
    assert (answer.status_code, answer.text) == (200, "380441234567")


@pytest.mark.parametrize("host", HOSTS)
def test_who_asks_is_known_by_one_address(service: Service, host: str) -> None:
    address = here(host).strip("[]")
    token = service.hook_url("elsewhere").rpartition("/")[2]
    assert requests.get(f"http://{host}:{service.port}/hook/{token}", timeout=60).status_code == 404
    told = service.log.read_text()
    assert f'"remote":"{address}"' in told.replace('": "', '":"')
    with service.database.reading() as session:
        kept = session.query(models.RefusedRequest).order_by(models.RefusedRequest.at.desc()).first()
        assert kept is not None
        assert kept.remote == address


@pytest.mark.parametrize("host", HOSTS)
def test_the_web_server_names_whom_it_refuses_by_that_address(service: Service, host: str) -> None:
    address = here(host).strip("[]")
    with socket.create_connection((address, service.port), timeout=60) as sock:
        sock.sendall(b"GET /sign-in HTTP/9.9\r\n\r\n")
        assert b"400" in sock.recv(100)
    assert f"ip={address}:" in service.log.read_text().replace("ip=::ffff:", "ip=mapped ")


def test_the_first_owner_s_link_leads_here(service: Service) -> None:
    """In production it stands in the log."""
    if service.environ["ENVIRONMENT"] == "production":
        link = service.log.read_text().partition("within 24 hours: ")[2].split()[0].rstrip('",}')
        assert requests.get(link, timeout=60).ok


def test_an_ipv4_client_of_an_ipv6_socket_is_that_client(migrated_sqlite_url: str) -> None:
    with closing(Desk(migrated_sqlite_url, CONFIG)) as desk:
        for remote, status in (("::ffff:127.0.0.1", 200), ("::ffff:203.0.113.9", 404)):
            answer = desk.client.get(f"/hook/{desk.token()}", environ_overrides={"REMOTE_ADDR": remote})
            assert answer.status_code == status
        assert [refused.remote for refused in desk.all(models.RefusedRequest)] == ["203.0.113.9"]
