"""A test question to our own hook, the whole way that a real one goes but for what is kept of a call.

Over HTTP to our own address where another web process can answer; through the app itself, in this process, where this
one is the only one and would wait for itself, or where the address list would keep us out.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import requests
from flask import Flask
from werkzeug.test import Client, EnvironBuilder

from router.hook.auth import new_test_id, parse_networks

CONNECT_SECONDS, READ_SECONDS = 2.0, 5.0
_MOST_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Tested:
    """What became of the test. `status` 0: there was no answer, `error` says why. `over_http`: it left this process.

    `refused_over_http`: what went wrong on the way to our own address, where the app itself did answer.
    """

    call_id: str
    status: int
    body: str
    seconds: float
    over_http: bool
    error: str = ""
    refused_over_http: str = ""

    @property
    def is_good(self) -> bool:
        return self.status == 200


@dataclass(frozen=True, slots=True)
class Ask:
    """Where and as whom to ask: `base_url` without a slash at its end, `basic_auth` "user:password" or ""."""

    app: Flask
    base_url: str
    token: str
    basic_auth: str
    allow_addresses: tuple[str, ...]
    can_answer_itself: bool  # another web process can take the question

    def run(self, caller: str, dialed: str) -> Tested:
        """Ask where such a call would go now: the hook knows the id, and answers without taking it for a call."""
        call_id = new_test_id(str(self.app.secret_key))
        fields = {"call_id": call_id, "caller": caller, "dialed": dialed, "call_type": "in", "step": "test"}
        over_http = self.can_answer_itself and not self.allow_addresses
        tested = self._post(fields, over_http=over_http)
        if over_http and not tested.is_good:
            inside = self._post(fields, over_http=False)
            why = tested.error or f"HTTP {tested.status}"
            tested = Tested(call_id, inside.status, inside.body, inside.seconds, False, inside.error, why)
        return tested

    def _post(self, fields: Mapping[str, str], *, over_http: bool) -> Tested:
        began = time.monotonic()
        headers = {"User-Agent": "router test", "Connection": "close"}
        if self.basic_auth:
            headers["Authorization"] = "Basic " + base64.b64encode(self.basic_auth.encode()).decode()
        send = self._send_over_http if over_http else self._send_inside
        status, body, error = send(f"/hook/{self.token}", orjson.dumps(fields), headers)
        return Tested(fields["call_id"], status, body, time.monotonic() - began, over_http, error)

    def _send_over_http(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, str]:
        try:
            with requests.Session() as session:
                session.trust_env = False  # our own address is reached without anybody's proxy or .netrc
                answer = session.post(
                    self.base_url + path,
                    data=body,
                    headers={**headers, "Content-Type": "application/json"},
                    timeout=(CONNECT_SECONDS, READ_SECONDS),
                    allow_redirects=False,
                    stream=True,
                )
                text = answer.raw.read(_MOST_BYTES, decode_content=True).decode("utf-8", "replace")
                return answer.status_code, text, ""
        except (requests.RequestException, OSError) as error:
            return 0, "", type(error).__name__

    def _send_inside(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str, str]:
        environ: dict[str, Any] = {"REMOTE_ADDR": self._allowed_address()}
        builder = EnvironBuilder(
            path,
            base_url=self.base_url,
            method="POST",
            data=body,
            headers=list(headers.items()),
            content_type="application/json",
            environ_overrides=environ,
        )
        answer = Client(self.app.wsgi_app).open(builder)
        return answer.status_code, answer.get_data(as_text=True)[:_MOST_BYTES], ""

    def _allowed_address(self) -> str:
        """An address of the list: what is tested is the hook, not whether this server stands on the list."""
        networks = parse_networks(self.allow_addresses)
        return str(networks[0].network_address) if networks else "127.0.0.1"
