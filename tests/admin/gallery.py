"""Every template and macro of the admin pages on made-up data: for the eyes (`python tests/admin/gallery.py`) and for
test_theme.py. It knows no view and no database; it stands in for both, and so is the contract of the templates."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace as Row
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from flask import (
    Blueprint,
    Flask,
    Response,
    abort,
    current_app,
    flash,
    g,
    redirect,
    render_template,
    render_template_string,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_babel import Babel
from flask_wtf import CSRFProtect, FlaskForm
from markupsafe import Markup
from wtforms import (
    BooleanField,
    Form,
    IntegerField,
    PasswordField,
    RadioField,
    SelectChoice,
    SelectField,
    StringField,
    TextAreaField,
)
from wtforms.validators import DataRequired, Optional

from router.admin.explained import CandidateTold, OutcomeTold, PresenceTold, ReceivedTold, RuleTold, Told, TrialTold
from router.admin.security import here
from router.admin.standing import LoginTold
from router.admin.told import Answer
from router.core.model import Call

ADMIN = Path(__file__).parents[2] / "router" / "admin"

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "font-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)

# The endpoints that the templates name, with the arguments they give: docs/frontend.md holds the same list.
ENDPOINTS = {
    "account": "/account",
    "agent": "/p/<project>/agents/<int:id>",
    "agent_add_login": "/p/<project>/agents/add-login",
    "agent_deed": "/p/<project>/board/deed",
    "agent_new": "/p/<project>/agents/new",
    "agents": "/p/<project>/agents",
    "agents_import": "/p/<project>/agents/import",
    "audit": "/audit",
    "board": "/p/<project>/board",
    "board_agent": "/p/<project>/board/agents/<int:id>",
    "board_live": "/p/<project>/board/live",
    "call": "/p/<project>/calls/<int:id>",
    "calls": "/p/<project>/calls",
    "groups": "/p/<project>/groups",
    "hook": "/p/<project>/hook",
    "hook_rotate": "/p/<project>/hook/rotate",
    "hook_test": "/p/<project>/hook/test",
    "project_new": "/projects/new",
    "projects": "/projects",
    "rule": "/p/<project>/rules/<int:id>",
    "rule_delete": "/p/<project>/rules/<int:id>/delete",
    "rule_new": "/p/<project>/rules/new",
    "rule_switch": "/p/<project>/rules/<int:id>/switch",
    "rules": "/p/<project>/rules",
    "rules_order": "/p/<project>/rules/order",
    "schedules": "/p/<project>/schedules",
    "set_language": "/language",
    "settings": "/p/<project>/settings",
    "sign_out": "/sign-out",
    "try_call": "/p/<project>/try",
    "users": "/users",
}


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


# ---- the made-up world: Alice is free, Bob is on a call, Carol is on a break, Dave is offline


def _agent(number: int, name: str, state: str, **more: Any) -> Row:
    login = "acme_" + name.split(maxsplit=1)[0].lower()
    logins = [LoginTold(login, state)]
    if more.pop("mobile", False):
        logins.append(LoginTold(f"{login}_mob", "offline"))
    row: dict[str, Any] = {
        "id": number,
        "name": name,
        "state": state,
        "also": (),
        "since": ago(37 * number**2 % 9000),
        "until": None,
        "logins": logins,
        "offered": 31 * number % 29,
        "answered": 31 * number % 23,
        "daily_cap": None,
        "groups": ["sales"],
        "caller": None,
        "call_id": None,
        "status": "available",
        "paused": False,
        "reason": "",
    }
    return Row(**(row | more))


def agents() -> list[Row]:
    return [
        _agent(1, "Alice Shevchenko", "idle", mobile=True, daily_cap=80),
        _agent(2, "Bob Kovalenko", "speaking", also=("off_duty",), caller="380501234567", call_id=41),
        _agent(9, "Erin Melnyk", "reserved", caller="380671112233", call_id=42, until=ago(-17)),
        _agent(10, "Frank Bondarenko", "wrap_up", until=ago(-8)),
        _agent(11, "Grace Tkachenko-Ostrohradska", "idle", mobile=True),
        _agent(3, "Carol Boyko", "on_break", status="on_break", reason="no_answers"),
        _agent(12, "Heidi Lysenko", "cooling_down", until=ago(-22)),
        _agent(13, "Ivan Moroz", "paused", paused=True),
        _agent(14, "Judy Savchenko", "off_duty", status="off_duty"),
        _agent(4, "Dave Oliinyk", "offline", since=ago(86400 * 3)),
        _agent(15, "Mallory Rudenko", "unknown", since=None),
    ]


OFFERED = Row(kind="agent", agent="Alice Shevchenko", login="acme_alice", destination="acme_alice")
OVERFLOW = Row(kind="overflow", agent="", login="", destination="380441234567")
EMPTY = Row(kind="empty", agent="", login="", destination="")


def decisions() -> list[Row]:
    passed = [("speaking", 3), ("on_break", 1)]
    rows = [
        ("380501234567", OFFERED, "", "VIP", passed, "", 4),
        ("380671112233", OFFERED, "answered", "everyone", [], "", 48),
        ("", OVERFLOW, None, "night", [("off_hours", 9)], "", 340),
        ("380931234567", OFFERED, "no_answer", "everyone", [("reserved", 2)], "", 1300),
        ("101", OVERFLOW, None, None, [], "the database did not answer in time", 5200),
        ("380441002030", EMPTY, "abandoned", "blocked", [], "", 90000),
    ]
    return [
        Row(
            id=40 + n,
            at=ago(age),
            caller=caller,
            dialed="380441112233",
            answer=answer,
            outcome=outcome,
            rule=rule,
            passed_over=skipped,
            degraded=degraded,
            inferred=False,
            latency_seconds=0.0042 * (n + 1),
        )
        for n, (caller, answer, outcome, rule, skipped, degraded, age) in enumerate(rows)
    ]


TREND = [0, 0, 1, 0, 0, 2, 5, 9, 18, 24, 21, 17, 26, 22, 14]


class Look:
    """A look at the board that shows everybody."""

    state, group, q, sort, is_all = "", 0, "", "state", False
    arguments: ClassVar[dict[str, str]] = {}

    def url(self, endpoint: str = "admin.board", **changes: Any) -> str:
        return url_for(endpoint, **changes)


def board(**more: Any) -> dict[str, Any]:
    """The board's parts, as the view puts them together."""
    counts = [("", 11), ("idle", 2), ("reserved", 1), ("speaking", 1), ("wrap_up", 2), ("away", 3), ("offline", 2)]
    content: dict[str, dict[str, Any]] = {
        "presence": {"presence": Row(state="fresh", source="Ringostat", at=ago(1), error=None, policy="")},
        "start": {"steps": []},
        "tiles": {
            "tiles": [Row(state=name, agents=n, url=f"?state={name}", is_current=not name) for name, n in counts]
        },
        "calls": {
            "hours": [(f"{n:02}:00", value, value // 7) for n, value in enumerate(TREND)],
            "offered": 142,
            "answered": 120,
        },
        "decisions": {"decisions": [(line, line.passed_over) for line in decisions()]},
    }
    shown = more.pop("agents", agents())
    draw = '{% import "board/_agent.html" as of_agent with context %}{{ of_agent.row(a) }}'
    rows = [Row(id=a.id, html=Markup(render_template_string(draw, a=a))) for a in shown]  # noqa: S704
    columns = [("name", "Agent", ""), ("state", "State", ""), ("since", "Since", ""), ("calls", "Calls", "end")]
    look = Look()
    return {
        "parts": {
            name: Markup(render_template(f"board/_{name}.html", **(values | more.get(name, {}))))  # noqa: S704
            for name, values in content.items()
        },
        "table": Row(
            rows=rows,
            html=Markup("\n").join(row.html for row in rows),
            found=1011 if shown else 0,
            total=len(shown),
            columns=columns,
            look=look,
        ),
        "look": look,
        "groups": [("Sales", 1), ("VIP", 2)],
        "seen": "0000",
    }


def onboarding() -> list[Row]:
    return [
        Row(title="Make a project", text="", done=True, url="", action=""),
        Row(title="Connect to Ringostat", text="", done=True, url="", action=""),
        Row(
            title="Add the agents",
            text="Four logins are online and belong to nobody yet.",
            done=False,
            url="#agents",
            action="Add agents",
        ),
        Row(
            title="Make a group and a rule",
            text="Who answers which calls.",
            done=False,
            url="#group",
            action="Make a group",
        ),
        Row(
            title="Enter the hook in Ringostat’s cabinet",
            text="Then call your own number.",
            done=False,
            url="#hook",
            action="Show the hook",
        ),
    ]


def rules() -> list[Row]:
    sales, vip = Row(name="Sales", url="#"), Row(name="VIP", url="#")

    def phrase(kind: str, *values: str, name: str = "", negated: bool = False) -> Row:
        return Row(kind=kind, name=name, values=list(values), negated=negated)

    def rule(number: int, name: str, phrases: list[Row], **more: Any) -> Row:
        base: dict[str, Any] = {
            "id": number,
            "name": name,
            "phrases": phrases,
            "enabled": True,
            "prefer": None,
            "prefer_days": 30,
            "groups": [sales],
            "overflow": None,
            "matched_count": 37 * number,
            "matched_at": ago(200 * number),
            "warnings": [],
            "trend": [number * n % 11 for n in range(14)],
        }
        return Row(**(base | more))

    return [
        rule(
            1,
            "VIP",
            [phrase("caller", "+38050…", "+38067…"), phrase("dialed", "380441112233")],
            groups=[vip, sales],
            prefer="last_agent",
            overflow="380671234567",
        ),
        rule(
            2, "Advertising", [phrase("param", "google", "bing", name="utm_source"), phrase("schedule", "office hours")]
        ),
        rule(
            3,
            "Night",
            [phrase("outside", "office hours")],
            groups=[],
            overflow="380671234567",
            matched_count=1,
            warnings=["No rule covers Sunday 10:00–15:00: such calls go to the project’s overflow."],
        ),
        rule(
            4,
            "Blocked callers",
            [phrase("caller", "380443210000", negated=False)],
            groups=[],
            overflow="",
            enabled=False,
            matched_at=None,
        ),
        rule(5, "Everyone", [], prefer="param:responsible"),
    ]


def explanation(*, trial: bool = False) -> Told:
    def candidate(agent: str, result: str, key: str = "", tier: int | None = None) -> CandidateTold:
        return CandidateTold(agent, "acme_" + agent.split(maxsplit=1)[0].lower(), tier, result, key)

    raw = '{"call_id":"ua9_-1790775458.2139025","caller":"+380501234567"}'
    params = {"utm_source": "google", "landing": "https://example.org/?a=<b>"}
    return Told(
        id=None if trial else 41,
        at=ago(48),
        latency_seconds=None if trial else 0.0042,
        version=17,
        call=Call("ua9_-1790775458.2139025", "webhookNumber:120", "380501234567", "380441112233", "in", params),
        params=list(params.items()),
        received=None
        if trial
        else ReceivedTold(
            method="POST",
            form="json",
            remote="203.0.113.7",
            user_agent="ringostat HTTP Client v1.1",
            raw=raw,
            understood=[("caller", "body userfield"), ("dialed", "body dst")],
            problems=["query utm_term is {utm_term}, a template's placeholder that nothing was put into."],
        ),
        rules_above=[RuleTold(f"Line {n}", False, "dialed is 380441112233, not 380443330000", "#") for n in range(9)],
        rules=[
            RuleTold("Blocked callers", False, "it is turned off", "#"),
            RuleTold("Night", False, "it is open by “office hours”", None),
            RuleTold("VIP", True, "", "#"),
        ],
        trials=[
            TrialTold(
                None,
                None,
                "",
                [candidate("Carol Boyko", "on_break")],
                [],
                "Carol Boyko talked with this caller 3 days ago. So says the platform’s call log.",
            ),
            TrialTold("VIP", "#", "priority", [candidate("Dave Oliinyk", "offline")], []),
            TrialTold(
                "Sales",
                "#",
                "round_robin",
                [
                    candidate("Alice Shevchenko", "offered", "last offered 118 calls ago", 1),
                    candidate("Grace Tkachenko-Ostrohradska", "eligible", "never offered a call", 2),
                    candidate("Bob Kovalenko", "speaking"),
                    candidate("Heidi Lysenko", "cooling_down", "for another 12 s"),
                    candidate("Ivan Moroz", "paused"),
                    candidate("Frank Bondarenko", "wrap_up", "for another 4 s"),
                    candidate("Judy Savchenko", "off_hours"),
                    candidate("Olga Hnatiuk", "at_cap", "80 of 80 answered today"),
                    candidate("Pavlo Zub", "already_tried"),
                    candidate("Mallory Rudenko", "presence_unknown"),
                ],
                [("offline", 900)],
            ),
        ],
        presence=PresenceTold("fresh", "Ringostat", 1.2, ""),
        answer=Answer("agent", "Alice Shevchenko", "acme_alice", "acme_alice"),
        of="",
        cause="",
        degraded="",
        outcome=None
        if trial
        else OutcomeTold("answered", "Alice Shevchenko", 7.0, 204.0, "PROPER", True, ago(41), None),
        check=None if trial else True,
        is_config_kept=True,
    )


def hook(*, waiting: bool) -> dict[str, Any]:
    url = "https://router.example.org/hook/4h7JvQ2x9LkT0aWmYb3Rn8ZpDc6Fs1Ge"
    raw = 'POST /hook/4h7J… HTTP/1.1\nContent-Type: application/json\n\n{"call_id":"ua9_-17907","caller":"<script>"}'
    understood = {"caller": "380501234567", "dialed": "380441112233", "call_id": "ua9_-1790775458.2139025"}
    return {
        "hook_url": url,
        "event_url": url + "/event",
        "public": not waiting,
        "first_call": None if waiting else Row(at=ago(90000), id=1),
        "last_at": ago(14),
        "calls_today": 142,
        "live_url": "/p/acme/hook/live",
        "cabinet": [
            Row(label="Method", value="POST", help="", choose=True),
            Row(label="Data submission type", value="json", help="", choose=True),
            Row(label="Data import type", value="json", help="", choose=True),
            Row(label="Name in response for destination", value="destination", help="", choose=False),
            Row(label="Timeout", value="5", help="Seconds. We answer within 1.5.", choose=False),
        ],
        "parameters": [
            ("call_id", "Unique call id", "one answer per question"),
            ("caller", "Caller’s number", "rules by caller"),
            ("dialed", "Dialed number", "rules by number"),
            ("utm_source", "UTM source", "rules by advertising"),
        ],
        "tokens": [
            Row(created_at=ago(9000), expires_at=None, last_used_at=ago(14)),
            Row(created_at=ago(9e6), expires_at=ago(-60000), last_used_at=ago(8000)),
        ],
        "requests_url": "/p/acme/hook/requests",
        "requests": []
        if waiting
        else [
            Row(
                id=3,
                at=ago(14),
                method="POST",
                remote="203.0.113.7",
                result="offered",
                reason="",
                raw=raw,
                understood=understood,
                decision_id=41,
                sent="acme_alice",
                latency_seconds=0.004,
            ),
            Row(
                id=2,
                at=ago(300),
                method="GET",
                remote="203.0.113.7",
                result="overflow",
                reason="",
                raw="GET /hook/4h7J…?caller=-1",
                understood={"caller": ""},
                decision_id=40,
                sent="380441234567",
                latency_seconds=0.003,
            ),
            Row(
                id=1,
                at=ago(4000),
                method="POST",
                remote="198.51.100.23",
                result="refused",
                reason="address not allowed",
                raw="POST /hook/4h7J…",
                understood={},
                decision_id=None,
                sent="",
                latency_seconds=None,
            ),
        ],
    }


class EveryField(FlaskForm):  # type: ignore[misc]
    name = StringField("Name", [DataRequired("Give the agent a name.")])
    wrap_up = IntegerField("Wrap-up", [Optional()])
    country = SelectField("Country", choices=[SelectChoice("UA", "Ukraine"), SelectChoice("PL", "Poland")])
    notes = TextAreaField("Notes", [Optional()])
    auth_key = PasswordField("Auth-key", [Optional()])
    clear = BooleanField("Remove the key")
    dnd = BooleanField("Count logins in do-not-disturb as online")
    strategy = RadioField(
        "Strategy", choices=[SelectChoice(s, s) for s in ("round_robin", "priority", "weighted")], default="priority"
    )


class SignIn(FlaskForm):  # type: ignore[misc]
    email = StringField("Email")
    password = PasswordField("Password")


class FirstOwner(FlaskForm):  # type: ignore[misc]
    email = StringField("Email", [DataRequired("Enter your email address.")])
    name = StringField("Name", [Optional()])
    password = PasswordField("Password", [DataRequired("Choose a password.")])
    again = PasswordField("Password again")


def conditions() -> dict[str, Any]:
    return {
        "conditions": [
            Row(kind="caller", op="is", name="", value="+38050*, anonymous", error=""),
            Row(kind="param", op="equals", name="utm_source", value="google, bing", error=""),
            Row(
                kind="dialed",
                op="is",
                name="",
                value="38044",
                error="“38044” is no whole number. Write 38044* for a beginning.",
            ),
            Row(kind="schedule", op="outside", name="", value="office hours", error=""),
        ],
        "schedules": ["office hours", "warehouse"],
        "groups": ["Sales", "VIP"],
    }


def members() -> dict[str, Any]:
    rows = [
        Row(agent_id=a.id, name=a.name, state=a.state, tier=1 + a.id % 2, weight=1, errors=None) for a in agents()[:4]
    ]
    return {"members": rows, "strategy": "weighted", "others": [(4, "Dave Oliinyk")]}


WORKDAY = [(540, 780), (840, 1080)]
WEEK = [(day, WORKDAY) for day in ("Mon", "Tue", "Wed", "Thu", "Fri")] + [("Sat", [(600, 900)]), ("Sun", [])]


def pieces() -> dict[str, Any]:
    form = EveryField()
    if request.args.get("bad"):
        form.validate()
    return {
        "form": form,
        "states": STATES,
        "trend": TREND,
        "hours": [(f"{n:02}", value) for n, value in enumerate(TREND)],
        "week": WEEK,
        "theirs": [("Wrap-up", "10 s", "20 s"), ("SIP login", None, "acme_ann_mob"), ("Cap", "80", "")],
        "at": ago(30),
        "steps": onboarding(),
        **members(),
        "check": Row(ok=True, took_seconds=0.184, online=["acme_alice", "acme_bob"], speaking=["acme_bob"], unowned=1),
    }


STATES = (
    "idle",
    "reserved",
    "speaking",
    "offline",
    "unknown",
    "available",
    "on_break",
    "off_duty",
    "paused",
    "off_hours",
    "presence_unknown",
    "wrap_up",
    "cooling_down",
    "at_cap",
    "already_tried",
    "offered",
    "eligible",
    "lost",
    "answered",
    "no_answer",
    "abandoned",
    "",
    "overflow",
    "empty",
    "refused",
    "degraded",
    "failed",
    "fresh",
    "old",
)


def agents_page() -> dict[str, Any]:
    rows = [
        Row(
            **vars(a)
            | {"groups": [Row(name="Sales", url="#")], "wrap_up_seconds": 10, "away_until": None, "deputy": ""}
        )
        for a in agents()
    ]
    rows[3].logins, rows[4].groups, rows[5].away_until, rows[5].deputy = [], [], ago(-900000), "Bob"
    unowned = [
        Row(login="acme_oksana", name="Oksana", seen_at=ago(3)),
        Row(login="acme_petro_mob", name="Petro", seen_at=ago(3)),
    ]
    pages = {"older_url": "?before=11", "newer_url": None}
    return {"agents": rows, "unowned": unowned, "q": "", "total": 1011, "warnings": [], **pages}


class Filters(Form):  # type: ignore[misc]
    caller = StringField("Caller", default="050")
    dialed = StringField("Dialed", default="")
    agent = SelectField("Offered to", choices=[SelectChoice("", "any"), SelectChoice("1", "Alice")])
    rule = SelectField("Rule", choices=[SelectChoice("", "any"), SelectChoice("1", "VIP")])
    outcome = SelectField("Outcome", choices=[SelectChoice("", "any"), SelectChoice("answered", "Answered")])
    since = StringField("From")
    until = StringField("Until")
    degraded = BooleanField("Answered under difficulties only", default=True)


def calls_page() -> dict[str, Any]:
    return {
        "form": Filters(),
        "calls": decisions(),
        "is_filtered": True,
        "degraded_words": str,
        "older_url": "?older=40",
        "newer_url": "?newer=45",
        "on_url": "?on=1",
        "reached": Row(at=ago(900000)),
        "news_url": None,
        "csv_url": "#",
        "excel_url": "#",
    }


def audit() -> dict[str, Any]:
    change = [("Strategy", "round_robin", "longest_idle"), ("Overflow", "", "380671234567")]
    entries = [
        Row(
            id=n,
            at=ago(n * 4000),
            actor="ann@example.org",
            action_words="changed the group",
            subject_name="Sales",
            url="#",
            project="acme",
            version=1763900000 + n,
            changes=change,
        )
        for n in (1, 2)
    ]
    return {"entries": entries, "older_url": None, "newer_url": None}


Page = tuple[str, Callable[[], dict[str, Any]]]
PAGES: dict[str, Page] = {
    "board": ("board/board.html", board),
    "start": (
        "board/board.html",
        lambda: board(
            agents=[],
            decisions={"decisions": []},
            start={"steps": onboarding()},
            presence={
                "presence": Row(
                    state="failed",
                    source="Ringostat",
                    at=ago(300),
                    policy="Calls go by the presence last known, for 60 s.",
                    error=Row(
                        message="401, the Auth-key is not accepted",
                        remedy="Copy the key anew from the cabinet: Integration, API.",
                    ),
                    error_at=ago(2),
                )
            },
        ),
    ),
    "agents": ("agents/agents.html", agents_page),
    "rules": ("rules/rules.html", lambda: {"rules": rules(), "project_overflow": "380441234567"}),
    "rule": ("gallery_rule.html", conditions),
    "calls": ("calls/calls.html", calls_page),
    "call": (
        "calls/call.html",
        lambda: {
            "d": explanation(),
            "steps": [("webhookNumber:119", decisions()[3]), ("webhookNumber:120", decisions()[1])],
            "again_url": "#",
        },
    ),
    "try": ("gallery_try.html", lambda: {"d": explanation(trial=True)}),
    "hook": ("hook/hook.html", lambda: hook(waiting=False)),
    "waiting": ("hook/hook.html", lambda: hook(waiting=True)),
    "pieces": ("gallery_pieces.html", pieces),
    "audit": ("gallery_audit.html", audit),
    "projects": (
        "projects/projects.html",
        lambda: {
            "rows": [
                Row(
                    name=name,
                    url="/see/board",
                    calls_today=142,
                    trend=TREND,
                    presence=state,
                    agents=18,
                    warning=warning,
                )
                for name, state, warning in (("acme", "fresh", ""), ("globex", "unknown", "Ringostat answers 403"))
            ]
        },
    ),
    "sign-in": ("auth/sign_in.html", lambda: {"form": SignIn(), "problem": request.args.get("problem", "")}),
    "first-run": (
        "auth/first_run.html",
        lambda: {
            "form": FirstOwner(),
            "heading": "Welcome",
            "email": "",
            "text": "This link works once. Make the first owner’s account.",
        },
    ),
    "error": ("error.html", lambda: {"code": 404, "reference": "b41c"}),
}


def create_gallery() -> Flask:
    """Each page of PAGES at /see/NAME; ?viewer=1 shows it as to a viewer. What is posted is kept in extensions."""
    app = Flask(__name__, static_folder=None, template_folder=str(Path(__file__).parent / "templates"))
    app.config.update(SECRET_KEY="gallery", TESTING=True, SEND_FILE_MAX_AGE_DEFAULT=3600)
    app.extensions["posted"] = []
    CSRFProtect(app)
    Babel(app)
    app.register_blueprint(_views(app))
    app.add_url_rule("/see/<name>", "page", _page, methods=["GET", "POST"])
    app.add_url_rule("/p/acme/hook/live", "hook_live", _hook_live)
    app.add_url_rule("/p/acme/hook/requests", "hook_requests", _hook_requests)
    app.add_url_rule("/broken", "broken", _broken, methods=["POST"])
    app.before_request(_local_time)
    app.after_request(_csp)
    app.context_processor(_shell)
    app.jinja_env.globals["here"] = here
    return app


def _views(app: Flask) -> Blueprint:
    """The blueprint that the templates name; stand-ins for its views keep what is posted and say that it is saved."""
    admin = Blueprint(
        "admin",
        __name__,
        template_folder=str(ADMIN / "templates"),
        static_folder=str(ADMIN / "static"),
        static_url_path="/static",
    )

    def stand_in(**values: Any) -> ResponseReturnValue:
        if request.method == "POST":
            app.extensions["posted"].append({"endpoint": request.endpoint, **request.form.to_dict(flat=False)})
            if request.headers.get("HX-Request"):
                saved = '{"toast": {"message": "Saved.", "level": "success"}}'
                return Response(status=204, headers={"HX-Trigger": saved})
        return redirect(request.referrer or "/see/board")

    for name, path in ENDPOINTS.items():
        admin.add_url_rule(path, name, LIVE.get(name, stand_in), methods=["GET", "POST"])

    @admin.url_defaults
    def put_project(endpoint: str, values: dict[str, Any]) -> None:
        if app.url_map.is_endpoint_expecting(endpoint, "project"):
            values.setdefault("project", "acme")

    return admin


def _page(name: str) -> ResponseReturnValue:
    if name not in PAGES:
        abort(404)
    if request.method == "POST":
        current_app.extensions["posted"].append({"endpoint": name, **request.form.to_dict(flat=False)})
    if request.args.get("flash"):
        flash("Saved. It holds for the next call.", "success")
    template, data = PAGES[name]
    return render_template(template, **data())


def _board_live(**_values: Any) -> ResponseReturnValue:
    if current_app.extensions.get("down"):
        abort(500)
    made = board()
    return render_template("board/_news.html", **made | {"parts": list(made["parts"].items()), "rows": []})


LIVE: dict[str, Callable[..., ResponseReturnValue]] = {"board_live": _board_live}
"""Endpoints whose answers are drawn, not only kept."""


def _hook_live() -> ResponseReturnValue:
    return render_template("hook/_live.html", **hook(waiting=not current_app.extensions.get("called")))


def _hook_requests() -> ResponseReturnValue:
    return render_template("hook/_requests.html", **hook(waiting=False))


def _broken() -> ResponseReturnValue:
    return "<p>swapped</p>", int(request.args["status"])


def _local_time() -> None:
    g.time_zone = ZoneInfo("Europe/Kyiv")


def _csp(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = CSP
    return response


def _shell() -> dict[str, Any]:
    editor = not request.args.get("viewer")
    return {
        "language": "en",
        "languages": [("en", "English"), ("uk", "Українська")],
        "now": datetime.now(UTC),
        "project": None if request.path in ("/see/projects", "/see/audit") else Row(name="acme"),
        "projects": [Row(name="acme"), Row(name="globex international")],
        "is_owner": editor,
        "can_edit": editor,
        "current_user": Row(email="ann@example.org", name="Ann Marchenko", role="owner" if editor else "viewer"),
    }


if __name__ == "__main__":
    create_gallery().run(port=int(sys.argv[1]) if len(sys.argv) > 1 else 8123, debug=False)
