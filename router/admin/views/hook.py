"""The hook: its address, what to type into the platform's cabinet, a test, what came in, new addresses."""

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

from router.admin.hook_test import Ask, Tested
from router.admin.i18n import _, lazy
from router.admin.note_words import note_words
from router.admin.page import (
    Role,
    changing,
    context,
    current_configuration,
    current_project,
    current_user,
    done,
    may,
    page,
    reading,
)
from router.admin.told import Mask, mask_of, mask_within
from router.core.events import EventKind
from router.db import models
from router.db.configuration import tell
from router.db.records import record_of
from router.db.types import Unreadable, readable
from router.hook.auth import TEST_PREFIX, new_token, token_hash
from router.numbers import normalise_number

REQUESTS_SHOWN = 20
GRACE = {"0": timedelta(0), "1": timedelta(hours=1), "24": timedelta(hours=24), "168": timedelta(days=7)}
MOST_COUNTED = 100_000

_TEST = "test"  # as a reason: it was not refused, only answered without a decision

_REASONS = {
    "wrong user or password": lazy("wrong user or password"),
    "address not allowed": lazy("address not allowed"),
    "wrong token": lazy("wrong address"),
    "too many wrong passwords": lazy("too many wrong passwords"),
}


@page("/p/<project>/hook", see=Role.VIEWER)
def hook() -> ResponseReturnValue:
    """All that a customer needs to connect the platform."""
    with reading() as session:
        document = current_configuration(session).document
        tokens = session.scalars(
            select(models.HookToken)
            .where(models.HookToken.project_id == current_project().id)
            .order_by(models.HookToken.id.desc())
        ).all()
        live = _live(session)
        requests_ = _requests(session)
    settings = context().settings
    now = datetime.now(UTC)
    hook_part = document["project"]["hook"]
    token = next(token.token for token in tokens if token.expires_at is None)
    url = _hook_url(token)
    return render_template(
        "hook/hook.html",
        hook_url=url,
        event_url=f"{url}/event",
        events=[(kind.value, f"{url}/event?event={kind.value}") for kind in EventKind if kind],
        is_shown=may(Role.EDITOR) and not isinstance(token, Unreadable),
        is_unreadable=isinstance(token, Unreadable),
        public=not _is_private(settings.base_url),
        cabinet=_cabinet(hook_part),
        parameters=_parameters(document),
        tokens=[token for token in tokens if token.expires_at is None or token.expires_at > now],
        requests=requests_,
        requests_url=url_for("admin.hook_requests"),
        in_process=not _can_answer_itself() or bool(hook_part["allow_addresses"]),
        grace=[("24", _("24 hours")), ("1", _("an hour")), ("168", _("a week")), ("0", _("not at all"))],
        **live,
    )


def _hook_url(token: str | Unreadable) -> str:
    """The address; for viewers the secret is left out."""
    hidden = "•" * 12
    if isinstance(token, Unreadable):
        shown = hidden
    else:
        shown = token if may(Role.EDITOR) else f"{hidden}{token[-4:]}"
    return f"{context().settings.base_url}/hook/{shown}"


def _is_private(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


# ---- what to type into the cabinet


def _cabinet(hook_part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each field of the cabinet with its exact value, for the project's form of answer."""
    answer, key = hook_part["answer"], hook_part["key"]
    rpc = answer == "json-rpc"
    seconds = context().settings.hook_budget_ms / 1000
    fields: list[tuple[str, str, str, bool]] = [
        (_("Method"), "POST", _("Any other works too."), True),
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
        fields.append((_("JSON-RPC method"), "route", _("Any name does."), False))
    fields.append((_("Timeout"), "5", _("Seconds. We answer within %(n)s, whatever happens.", n=f"{seconds:g}"), False))
    return [{"label": label, "value": value, "help": help_, "choose": choose} for label, value, help_, choose in fields]


def _parameters(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(key to type, value to choose, what for). Those that the project's rules look at stand behind the usual ones."""
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
        if rule["prefer"] == "param":
            named.setdefault(rule["prefer_param"], rule["name"])
    known = {key for key, _value, _use in usual}
    more = [
        (parameter, _("the parameter of this meaning"), _("the rule “%(name)s”", name=rule_name))
        for parameter, rule_name in named.items()
        if parameter not in known
    ]
    return usual + more


# ---- what came in


@page("/p/<project>/hook/live", see=Role.VIEWER)
def hook_live() -> ResponseReturnValue:
    """Waiting for the first call, until it came."""
    with reading() as session:
        return render_template("hook/_live.html", **_live(session))


def _live(session: Session) -> dict[str, Any]:
    decision = models.Decision
    real = (decision.project_id == current_project().id, ~decision.call_id.startswith(TEST_PREFIX))
    first = session.execute(
        select(decision.id, decision.asked_at).where(*real).order_by(decision.asked_at).limit(1)
    ).first()
    live: dict[str, Any] = {"first_call": None, "live_url": url_for("admin.hook_live")}
    if first is None:
        return live
    midnight = datetime.combine(
        datetime.now(ZoneInfo(current_project().time_zone)).date(), time(), ZoneInfo(current_project().time_zone)
    )
    today = select(decision.id).where(decision.project_id == current_project().id, decision.asked_at >= midnight)
    last = select(decision.asked_at).where(*real).order_by(decision.asked_at.desc()).limit(1)
    return live | {
        "first_call": {"id": first.id, "at": first.asked_at},
        "last_at": session.scalar(last),
        "calls_today": session.scalar(select(func.count()).select_from(today.limit(MOST_COUNTED).subquery())),
    }


@page("/p/<project>/hook/requests", see=Role.VIEWER)
def hook_requests() -> ResponseReturnValue:
    """The last requests, as the fragment that renews itself."""
    with reading() as session:
        rows = _requests(session)
    return render_template("hook/_requests.html", requests=rows, requests_url=url_for("admin.hook_requests"))


def _requests(session: Session) -> list[dict[str, Any]]:
    """The last that were answered or refused, newest first. Of a decision's record only what is shown is read."""
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
            decision.latency_us,
            decision.caller,
            decision.dialed,
            decision.step,
            decision.project_id,
            decision.config_version,
            decision.packed,
            decision.record["received"].label("received"),
        )
        .where(decision.project_id == project_id)
        .order_by(decision.asked_at.desc())
        .limit(REQUESTS_SHOWN)
    )
    rows = [
        _answered(
            row,
            (row.received if row.packed is None else record_of(session, row)["received"]) or {},
            mask_of(current_project()),
        )
        for row in answered
    ]
    turned_away = session.scalars(
        select(refused).where(refused.project_id == project_id).order_by(refused.id.desc()).limit(REQUESTS_SHOWN)
    )
    mask = mask_of(current_project())
    rows += [_tested(row, mask) if row.reason == _TEST else _refused(row) for row in turned_away]
    rows.sort(key=lambda row: row["at"], reverse=True)
    return rows[:REQUESTS_SHOWN]


def _answered(row: Any, received: Mapping[str, Any], mask: Mask) -> dict[str, Any]:
    values = {"dialed": row.dialed, "call_id": row.call_id, "step": row.step}
    places = received.get("understood") or {}
    raw = _raw(received)
    return {
        "id": f"d{row.id}",
        "at": row.asked_at,
        "method": received.get("method", ""),
        "remote": received.get("remote") or "",
        "result": "degraded" if row.degraded else "empty" if row.destination == "" else _result(row.result),
        "reason": "",
        "raw": raw if mask(row.caller) == row.caller else mask_within(raw, row.caller),
        "understood": {"caller": mask(row.caller)}
        | {name: f"{values[name]} ← {place}" for name, place in places.items() if values.get(name)},
        "problems": [note_words(str(problem)) for problem in received.get("problems") or ()],
        "empty_id": received.get("empty_id") or "",
        "decision_id": row.id,
        "sent": row.destination,
        "latency_seconds": row.latency_us / 1_000_000,
        "is_test": row.call_id.startswith(TEST_PREFIX),
    }


def _result(result: str) -> str:
    return "offered" if result == "offer" else result


def _tested(row: models.RefusedRequest, mask: Mask) -> dict[str, Any]:
    sent = row.request
    caller = normalise_number(sent["caller"], current_project().country)
    raw = _raw(sent)
    return {
        "id": f"t{row.id}",
        "at": row.at,
        "method": sent["method"],
        "remote": row.remote,
        "result": "tested" if sent["status"] == 200 else "failed",
        "reason": "",
        "raw": raw if mask(caller) == caller else mask_within(raw, caller),
        "understood": {"caller": mask(caller)} | ({"dialed": sent["dialed"]} if sent["dialed"] else {}),
        "problems": [],
        "decision_id": None,
        "sent": sent["sent"],
        "latency_seconds": sent["seconds"],
        "is_test": True,
    }


def _refused(row: models.RefusedRequest) -> dict[str, Any]:
    return {
        "id": f"r{row.id}",
        "at": row.at,
        "method": row.request.get("method", ""),
        "remote": row.remote,
        "result": "refused",
        "reason": str(_REASONS.get(row.reason, row.reason)),
        "raw": _raw(row.request),
        "understood": {},
        "problems": [],
        "empty_id": "",
        "decision_id": None,
        "sent": "",
        "latency_seconds": None,
        "is_test": False,
    }


def _raw(received: Mapping[str, Any]) -> str:
    """The request as it came, without the secret part of its address."""
    query = f"?{received['query']}" if received.get("query") else ""
    lines = [f"{received.get('method', '')} /hook/…{query}"]
    if received.get("user_agent"):
        lines.append(f"User-Agent: {received['user_agent']}")
    lines += [f"{name}: {value}" for name, value in (received.get("headers") or {}).items()]
    if received.get("content_type"):
        lines.append(f"Content-Type: {received['content_type']}")
    if received.get("body"):
        lines += ["", str(received["body"])]
    return "\n".join(lines)


# ---- the test


def _can_answer_itself() -> bool:
    """Is there another web process? The one that runs this page would wait for itself."""
    return context().settings.web_concurrency > 1


@page("/p/<project>/hook/test", do=Role.EDITOR)
def hook_test() -> ResponseReturnValue:
    """Send a question and say what came back."""
    caller, dialed = (request.form.get(name, "").strip()[:64] for name in ("caller", "dialed"))
    with reading() as session:
        row = session.get_one(models.Project, current_project().id)
        token = session.scalars(
            select(models.HookToken.token)
            .where(models.HookToken.project_id == row.id, models.HookToken.expires_at.is_(None))
            .order_by(models.HookToken.id.desc())
        ).first()
        ask = Ask(
            app=current_app._get_current_object(),  # type: ignore[attr-defined]  # noqa: SLF001 - Flask's own way
            base_url=context().settings.base_url,
            token=readable(token),
            basic_auth="" if isinstance(row.hook_basic_auth, Unreadable) else row.hook_basic_auth or "",
            allow_addresses=tuple(row.hook_allow_addresses),
            can_answer_itself=_can_answer_itself(),
        )
    tested = ask.run(caller, dialed)
    _keep_test(tested, caller, dialed)
    level = "warning" if tested.refused_over_http else "success" if tested.is_good else "danger"
    return done(_said(tested, caller, dialed), url_for("admin.hook"), level)


def _keep_test(tested: Tested, caller: str, dialed: str) -> None:
    """Among the last requests, with those that were refused: a test is no decision, so that it counts nowhere."""
    request_ = {
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
                request=request_,
            )
        )


def _said(tested: Tested, caller: str, dialed: str) -> Markup:
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
    parts.append(_("It was a test: no call was counted, and nobody’s turn passed."))
    if tested.is_good:
        url = url_for("admin.try_call", caller=caller, dialed=dialed)
        parts.append(Markup('<a href="{}">{}</a>').format(url, _("Why such a call is answered so")))
    return Markup(" ").join(parts)


# ---- a new address


@page("/p/<project>/hook/rotate", do=Role.OWNER)
def hook_rotate() -> ResponseReturnValue:
    """Make a new address. The old one works for as long as was chosen, so that no call is lost in between."""
    grace = GRACE.get(request.form.get("grace", "24"))
    if grace is None:
        abort(400)
    token, now = new_token(), datetime.now(UTC)
    with changing() as session:
        project = session.get_one(models.Project, current_project().id)
        for old in _usable(session, now):
            old.expires_at = min(old.expires_at or now + grace, now + grace)
        session.add(models.HookToken(project_id=project.id, token_hash=token_hash(token), token=token, created_at=now))
        project.secrets_revision += 1
        _record(session, now, "rotated")
    if grace:
        return done(_("The new address is ready: enter it in Ringostat’s cabinet. The old one still works."), _back())
    said = _("The new address is ready, and the old one is refused from now on: enter the new one now.")
    return done(said, _back(), "warning")


def _usable(session: Session, now: datetime) -> list[models.HookToken]:
    tokens = session.scalars(select(models.HookToken).where(models.HookToken.project_id == current_project().id))
    return [token for token in tokens if token.expires_at is None or token.expires_at > now]


@page("/p/<project>/hook/tokens/<int:id>/end", do=Role.OWNER)
def hook_end_token(id: int) -> ResponseReturnValue:  # noqa: A002 - the word of the URL
    """Refuse an old address from now on. The one in use cannot be ended, only replaced."""
    now = datetime.now(UTC)
    with changing() as session:
        project = session.get_one(models.Project, current_project().id)
        token = next((one for one in _usable(session, now) if one.id == id), None)
        if token is None or token.expires_at is None:
            abort(404)
        token.expires_at = now
        project.secrets_revision += 1
        _record(session, now, "ended")
    return done(_("The old address is refused from now on."), _back())


def _record(session: Session, now: datetime, action: str) -> None:
    tell(
        session,
        models.AuditEntry(
            at=now,
            actor=current_user().email,
            project_id=current_project().id,
            action=action,
            subject="hook_token",
            subject_name=current_project().name,
        ),
    )


def _back() -> str:
    return url_for("admin.hook")
