"""The hook: its URL, the settings for the platform's cabinet, a test, the last requests, new URLs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from flask import abort, current_app, render_template, request, url_for
from flask.typing import ResponseReturnValue
from markupsafe import Markup
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from router.admin.hook_test import HookTest, Tested
from router.admin.i18n import _, lazy
from router.admin.page import (
    Role,
    audit_entry,
    changing,
    context,
    current_configuration,
    current_project,
    done,
    may,
    page,
    reading,
)
from router.admin.received import as_received
from router.core.events import EventKind
from router.db import models
from router.db.queries import is_of_call
from router.db.records import record_of
from router.db.types import Unreadable, readable
from router.hook.auth import new_token
from router.numbers import normalise_number
from router.routing.known import token_hash

REQUESTS_SHOWN = 20
GRACE = {"0": timedelta(0), "1": timedelta(hours=1), "24": timedelta(hours=24), "168": timedelta(days=7)}
MOST_COUNTED = 100_000

_TEST = "test"  # the reason of a stored request that was a test

_EVENTS = {
    EventKind.BEFORE_CALL: lazy("Before the call"),
    EventKind.FORWARDING: lazy("At each forwarding step"),
    EventKind.PICKUP: lazy("At pickup"),
    EventKind.AFTER_CALL: lazy("After the call"),
    EventKind.UNAVAILABLE: lazy("When the agent did not answer"),
}

_REASONS = {
    "wrong user or password": lazy("wrong user or password"),
    "address not allowed": lazy("address not allowed"),
    "wrong token": lazy("wrong address"),
    "too many wrong passwords": lazy("too many wrong passwords"),
}


@page("/p/<project>/hook", see=Role.VIEWER)
def hook() -> ResponseReturnValue:
    """Show everything that is needed to connect the platform."""
    with reading() as session:
        document = current_configuration(session).document
        tokens = session.scalars(
            select(models.HookToken)
            .where(models.HookToken.project_id == current_project().id)
            .order_by(models.HookToken.id.desc())
        ).all()
        live = _live(session)
        requests = _requests(session)
    settings = context().settings
    now = datetime.now(UTC)
    hook_part = document["project"]["hook"]
    token = next(token.token for token in tokens if token.expires_at is None)
    url = _hook_url(token)
    return render_template(
        "hook/hook.html",
        hook_url=url,
        event_url=f"{url}/event",
        events=[(kind.value, _EVENTS[kind], f"{url}/event?event={kind.value}") for kind in EventKind if kind],
        is_shown=may(Role.EDITOR) and not isinstance(token, Unreadable),
        is_unreadable=isinstance(token, Unreadable),
        public=not _is_private(settings.base_url),
        cabinet=_cabinet(hook_part),
        parameters=_parameters(document),
        tokens=[token for token in tokens if token.expires_at is None or token.expires_at > now],
        requests=requests,
        requests_url=url_for("admin.hook_requests"),
        in_process=not _can_answer_itself() or bool(hook_part["allow_addresses"]),
        grace=[("24", _("24 hours")), ("1", _("an hour")), ("168", _("a week")), ("0", _("not at all"))],
        **live,
    )


def _hook_url(token: str | Unreadable) -> str:
    """Return the URL; for viewers the token is hidden."""
    shown = "•" * 12
    if not isinstance(token, Unreadable):
        shown = token if may(Role.EDITOR) else f"{shown}{token[-4:]}"
    return f"{context().settings.base_url}/hook/{shown}"


def _is_private(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


# ---- the settings for the cabinet


def _cabinet(hook_part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return each field of the cabinet with its value, for the project's form of answer."""
    answer, key = hook_part["answer"], hook_part["key"]
    rpc = answer == "json-rpc"
    seconds = context().settings.hook_budget_ms / 1000
    fields: list[tuple[str, str, str, bool]] = [
        (_("Method"), "POST", _("Others work too."), True),
        (_("Data submission type"), "json-rpc" if rpc else "json", _("How Ringostat sends the parameters."), True),
        (
            _("Data import type"),
            {"auto": "json", "json": "json", "http": "http", "json-rpc": "json-rpc"}[answer],
            _("How Ringostat reads our answer."),
            True,
        ),
    ]
    if answer != "http":
        fields.append((_("Name in response for destination"), key, "", False))
    if rpc:
        fields.append((_("JSON-RPC method"), "route", _("Any name works."), False))
    fields.append((_("Timeout"), "5", _("Seconds. We answer within %(n)s, whatever happens.", n=f"{seconds:g}"), False))
    return [{"label": label, "value": value, "help": help_, "choose": choose} for label, value, help_, choose in fields]


def _parameters(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (key to type, value to choose, what for): the usual ones, then those that the project's rules use."""
    fields = document["project"]["hook"]["fields"]

    def name(field: str, usual: str) -> str:
        return str(fields[field][0]) if fields.get(field) else usual

    usual = [
        (name("call_id", "uniqueid"), _("the call’s unique id"), _("one answer for one question")),
        (name("caller", "userfield"), _("the caller’s number"), _("rules by caller, the call log")),
        (name("dialed", "dst"), _("the number that was called"), _("rules by dialed number")),
        (name("direction", "call_type"), _("the kind of call"), _("rules by direction")),
        (name("step", "step_forward"), _("the forwarding step"), _("the next agent when one does not answer")),
    ]
    named: dict[str, str] = {}
    for rule in document["rules"]:
        for key in ("params", "not_params"):
            for parameter in rule["when"].get(key, {}):
                named.setdefault(parameter, rule["name"])
        if isinstance(rule["prefer"], dict):
            named.setdefault(rule["prefer"]["param"], rule["name"])
    known = {key for key, _value, _use in usual}
    more = [
        (parameter, _("the matching parameter"), _("the rule “%(name)s”", name=rule_name))
        for parameter, rule_name in named.items()
        if parameter not in known
    ]
    return usual + more


# ---- the last requests


@page("/p/<project>/hook/live", see=Role.VIEWER)
def hook_live() -> ResponseReturnValue:
    """Render whether the first call has come."""
    with reading() as session:
        return render_template("hook/_live.html", **_live(session))


def _live(session: Session) -> dict[str, Any]:
    decision = models.Decision
    real = (decision.project_id == current_project().id, ~decision.is_test)
    first = session.execute(
        select(decision.id, decision.asked_at).where(*real).order_by(decision.asked_at).limit(1)
    ).first()
    live: dict[str, Any] = {"first_call": None, "live_url": url_for("admin.hook_live")}
    if first is None:
        return live
    zone = ZoneInfo(current_project().time_zone)
    midnight = datetime.combine(datetime.now(zone).date(), time(), zone)
    of_today = (decision.asked_at >= midnight, is_of_call([current_project().id]))
    today = select(decision.asked_at).where(decision.project_id == current_project().id, *of_today)
    last = select(decision.asked_at).where(*real).order_by(decision.asked_at.desc()).limit(1)
    return live | {
        "first_call": {"id": first.id, "at": first.asked_at},
        "last_at": session.scalar(last),
        "calls_today": session.scalar(select(func.count()).select_from(today.limit(MOST_COUNTED).subquery())),
    }


@page("/p/<project>/hook/requests", see=Role.VIEWER)
def hook_requests() -> ResponseReturnValue:
    """Render the last requests as the fragment that refreshes itself."""
    with reading() as session:
        rows = _requests(session)
    return render_template("hook/_requests.html", requests=rows, requests_url=url_for("admin.hook_requests"))


def _requests(session: Session) -> list[dict[str, Any]]:
    """Return the last requests, answered or refused, newest first. Reads of a decision's record only what is shown."""
    decision, refused = models.Decision, models.RefusedRequest
    project_id = current_project().id
    answered = session.execute(
        select(
            decision.id,
            decision.asked_at,
            decision.call_id,
            decision.result,
            decision.destination,
            decision.degraded,
            decision.caller,
            decision.dialed,
            decision.step,
            decision.project_id,
            decision.config_version,
            decision.packed,
            decision.is_test,
            decision.record["received"].label("received"),
        )
        .where(decision.project_id == project_id)
        .order_by(decision.asked_at.desc())
        .limit(REQUESTS_SHOWN)
    )
    rows = [
        _answered(row, (row.received if row.packed is None else record_of(session, row)["received"]) or {})
        for row in answered
    ]
    others = session.scalars(
        select(refused).where(refused.project_id == project_id).order_by(refused.id.desc()).limit(REQUESTS_SHOWN)
    )
    rows += [_tested(row) if row.reason == _TEST else _refused(row) for row in others]
    rows.sort(key=lambda row: row["at"], reverse=True)
    return rows[:REQUESTS_SHOWN]


def _request(id_: str, at: datetime, received: Mapping[str, Any], caller: str, **others: Any) -> dict[str, Any]:
    """Return what _requests.html needs of a request. `caller`: its number, which the project may mask."""
    return {"id": id_, "at": at, **as_received(received, caller), **others}


def _answered(row: Any, received: Mapping[str, Any]) -> dict[str, Any]:
    values = {"dialed": row.dialed, "call_id": row.call_id, "step": row.step}
    places = {name: place for name, place in (received.get("understood") or {}).items() if values.get(name)}
    result = "offered" if row.result == "offer" else row.result
    return _request(
        f"d{row.id}",
        row.asked_at,
        received,
        row.caller,
        result="degraded" if row.degraded else "empty" if row.destination == "" else result,
        understood={
            "caller": current_project().mask(row.caller),
            **{name: f"{values[name]} ← {place}" for name, place in places.items()},
        },
        empty_id=received.get("empty_id") or "",
        decision_id=row.id,
        sent=row.destination,
        is_test=row.is_test,
    )


def _tested(row: models.RefusedRequest) -> dict[str, Any]:
    sent = row.request
    caller = normalise_number(sent["caller"], current_project().country)
    return _request(
        f"t{row.id}",
        row.at,
        {**sent, "remote": row.remote},
        caller,
        result="tested" if sent["status"] == 200 else "failed",
        understood={
            "caller": current_project().mask(caller),
            **({"dialed": sent["dialed"]} if sent["dialed"] else {}),
        },
        sent=sent["sent"],
        is_test=True,
    )


def _refused(row: models.RefusedRequest) -> dict[str, Any]:
    received, reason = {**row.request, "remote": row.remote}, str(_REASONS.get(row.reason, row.reason))
    return _request(f"r{row.id}", row.at, received, "", result="refused", reason=reason)


# ---- the test


def _can_answer_itself() -> bool:
    """Return whether another web process can answer. This one would wait for itself."""
    return context().settings.web_concurrency > 1


@page("/p/<project>/hook/test", do=Role.EDITOR)
def hook_test() -> ResponseReturnValue:
    """Send a test request and show the answer."""
    caller, dialed = (request.form.get(name, "").strip()[:64] for name in ("caller", "dialed"))
    with reading() as session:
        row = session.get_one(models.Project, current_project().id)
        token = session.scalars(
            select(models.HookToken.token)
            .where(models.HookToken.project_id == row.id, models.HookToken.expires_at.is_(None))
            .order_by(models.HookToken.id.desc())
        ).first()
        test = HookTest(
            app=current_app._get_current_object(),  # type: ignore[attr-defined]  # noqa: SLF001 - Flask's own way
            base_url=context().settings.base_url,
            token=readable(token),
            basic_auth="" if isinstance(row.hook_basic_auth, Unreadable) else row.hook_basic_auth or "",
            allow_addresses=tuple(row.hook_allow_addresses),
            can_answer_itself=_can_answer_itself(),
        )
    tested = test.run(caller, dialed)
    decision_id = _decision_of_test(tested)
    if decision_id is None:
        _store_test(tested, caller, dialed)
    level = "warning" if tested.refused_over_http else "success" if tested.is_good else "danger"
    return done(_test_message(tested, caller, dialed, decision_id), url_for("admin.hook"), level)


def _decision_of_test(tested: Tested) -> int | None:
    """Return the decision by which the hook answered the test; None if it could not make or store one."""
    decision = models.Decision
    of_test = (decision.project_id == current_project().id, decision.call_id == tested.call_id, decision.call_id != "")
    with reading() as session:
        return session.scalar(select(decision.id).where(*of_test))


def _store_test(tested: Tested, caller: str, dialed: str) -> None:
    """Store a test that made no decision with the refused requests."""
    sent = {
        "method": "POST",
        "user_agent": "router test",
        "content_type": "application/json",
        "body": json.dumps({"call_id": tested.call_id, "caller": caller, "dialed": dialed}, ensure_ascii=False),
        "caller": caller,
        "dialed": dialed,
        "status": tested.status,
        "sent": tested.body.strip()[:200],
        "seconds": tested.seconds,
    }
    with context().database.writing() as session:
        session.add(
            models.RefusedRequest(
                project_id=current_project().id,
                at=datetime.now(UTC),
                reason=_TEST,
                remote=request.remote_addr or "",
                request=sent,
            )
        )


def _test_message(tested: Tested, caller: str, dialed: str, decision_id: int | None) -> Markup:
    parts: list[str | Markup] = []
    if tested.refused_over_http:
        parts.append(
            _(
                "Our own address %(url)s did not answer (%(why)s), but the service behind it does. Check PUBLIC_URL, "
                "DNS, and what stands in between.",
                url=context().settings.base_url,
                why=tested.refused_over_http,
            )
        )
    if tested.is_good:
        body = tested.body.strip()[:200] or _("an empty answer")
        parts.append(_("The hook answered in %(ms)s ms:", ms=round(tested.seconds * 1000)))
        parts.append(Markup("<code>{}</code>").format(body))
    else:
        parts.append(_("The hook did not answer as it should: %(why)s.", why=tested.error or f"HTTP {tested.status}"))
    parts.append(_("This was a test: nothing was counted, and nobody lost a turn."))
    if tested.is_good:
        url = url_for("admin.try_call", caller=caller, dialed=dialed)
        if decision_id is not None:
            url = url_for("admin.call", id=decision_id)
        parts.append(Markup('<a href="{}">{}</a>').format(url, _("Why this answer")))
    return Markup(" ").join(parts)


# ---- new URLs


@page("/p/<project>/hook/rotate", do=Role.OWNER)
def hook_rotate() -> ResponseReturnValue:
    """Make a new URL. The old one works for the chosen time, so that no call is lost in between."""
    grace = GRACE.get(request.form.get("grace", "24"))
    if grace is None:
        abort(400)
    token, now = new_token(), datetime.now(UTC)
    with changing() as draft:
        for old in _usable(draft.session, now):
            old.expires_at = min(old.expires_at or now + grace, now + grace)
        draft.session.add(
            models.HookToken(project_id=draft.project.id, token_hash=token_hash(token), token=token, created_at=now)
        )
        draft.count_secret(_audit("rotated"))
    back = url_for("admin.hook")
    if grace:
        return done(_("The new address is ready: enter it in Ringostat’s cabinet. The old one still works."), back)
    message = _("The new address is ready, and the old one is refused from now on: enter the new one now.")
    return done(message, back, "warning")


def _usable(session: Session, now: datetime) -> list[models.HookToken]:
    tokens = session.scalars(select(models.HookToken).where(models.HookToken.project_id == current_project().id))
    return [token for token in tokens if token.expires_at is None or token.expires_at > now]


@page("/p/<project>/hook/tokens/<int:id>/end", do=Role.OWNER)
def hook_end_token(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Refuse an old URL from now on. The current one can only be replaced."""
    now = datetime.now(UTC)
    with changing() as draft:
        token = next((one for one in _usable(draft.session, now) if one.id == id), None)
        if token is None or token.expires_at is None:
            abort(404)
        token.expires_at = now
        draft.count_secret(_audit("ended"))
    return done(_("The old address is refused from now on."), url_for("admin.hook"))


def _audit(action: str) -> models.AuditEntry:
    return audit_entry(action, "hook_token", project_id=current_project().id, name=current_project().name)
