"""Send a test request to our own hook, which answers it as a call but records no call.

Over HTTP to our own address if another web process can answer. Otherwise inside this process: it would wait for itself,
or the project's address list would refuse this server.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import orjson
import requests
from flask import Flask
from werkzeug.test import Client

from router.hook.auth import new_test_id, parse_networks

CONNECT_SECONDS, READ_SECONDS = 2.0, 5.0
_MOST_BYTES = 4096


class Tested(NamedTuple):
    """The result of a test. `status` 0: there was no answer, and `error` says why.

    `refused_over_http`: why it failed over HTTP, if it was answered inside this process afterwards.
    """

    call_id: str
    status: int
    body: str
    seconds: float
    error: str = ""
    refused_over_http: str = ""

    @property
    def is_good(self) -> bool:
        return self.status == 200


@dataclass(frozen=True, slots=True)
class HookTest:
    """A hook to test: `base_url` without a slash at its end, `basic_auth` "user:password" or ""."""

    app: Flask
    base_url: str
    token: str
    basic_auth: str
    allow_addresses: tuple[str, ...]
    can_answer_itself: bool  # another web process can take the request

    def run(self, caller: str, dialed: str) -> Tested:
        """Ask where such a call would go now."""
        call_id = new_test_id(str(self.app.secret_key))
        fields = {"call_id": call_id, "caller": caller, "dialed": dialed, "call_type": "in", "step": "test"}
        if not self.can_answer_itself or self.allow_addresses:
            return self._send(fields, over_http=False)
        tested = self._send(fields, over_http=True)
        if tested.is_good:
            return tested
        why = tested.error or f"HTTP {tested.status}"
        return self._send(fields, over_http=False)._replace(refused_over_http=why)

    def _send(self, fields: Mapping[str, str], *, over_http: bool) -> Tested:
        began = time.monotonic()
        headers = {"User-Agent": "router test", "Connection": "close", "Content-Type": "application/json"}
        if self.basic_auth:
            headers["Authorization"] = "Basic " + base64.b64encode(self.basic_auth.encode()).decode()
        send = self._send_over_http if over_http else self._send_inside
        status, body, error = send(f"/hook/{self.token}", orjson.dumps(fields), headers)
        return Tested(fields["call_id"], status, body, time.monotonic() - began, error)

    def _send_over_http(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, str]:
        try:
            with requests.Session() as session:
                session.trust_env = False  # our own address needs no proxy and no .netrc
                answer = session.post(
                    self.base_url + path,
                    data=body,
                    headers=headers,
                    timeout=(CONNECT_SECONDS, READ_SECONDS),
                    allow_redirects=False,
                    stream=True,
                )
                text = answer.raw.read(_MOST_BYTES, decode_content=True).decode("utf-8", "replace")
                return answer.status_code, text, ""
        except (requests.RequestException, OSError) as error:
            return 0, "", type(error).__name__

    def _send_inside(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, str]:
        # With an address from the list: the test is of the hook, not of this server's address.
        networks = parse_networks(self.allow_addresses)
        remote = str(networks[0].network_address) if networks else "127.0.0.1"
        answer = Client(self.app.wsgi_app).post(
            path, base_url=self.base_url, data=body, headers=headers, environ_overrides={"REMOTE_ADDR": remote}
        )
        return answer.status_code, answer.get_data(as_text=True)[:_MOST_BYTES], ""
