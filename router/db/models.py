"""Define the tables: what admins configure, what was observed of agents, and what was decided. No queries."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, CheckConstraint, ForeignKey, Index, Integer, MetaData, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column, relationship

from router.db.types import Instant, Secret, Unreadable

BigId = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for a plain INTEGER key


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a plain class attribute
        datetime: Instant,
        dict[str, Any]: JSON,
        list[str]: JSON,
    }


def _of_project() -> Mapped[int]:
    return mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))


class _Revised:
    """A row that people edit. `revision` counts its changes, to detect that two people edit it at the same time."""

    revision: Mapped[int] = mapped_column(default=1)

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805 - SQLAlchemy passes the class
        return {"version_id_col": cls.revision}


class _Configured(_Revised):
    """A row of the configuration. `more`: the keys of configuration.schema that have no column of their own."""

    more: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")


# ---- configuration: written by forms and by `router config apply`, read by the hook as one published document


class Installation(Base):
    """One row: the name of this installation, the same under whatever address its database is reached."""

    __tablename__ = "installation"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Project(_Configured, Base):
    """One tenant: credentials, agents, rules, hook."""

    __tablename__ = "projects"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    version: Mapped[int] = mapped_column(BigInteger, default=0)  # of the published configuration; 0: never published
    time_zone: Mapped[str] = mapped_column(default="Europe/Kyiv")
    country: Mapped[str] = mapped_column(default="UA")
    overflow: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]

    hook_answer: Mapped[str] = mapped_column(default="auto")
    hook_key: Mapped[str] = mapped_column(default="destination")
    hook_rpc_result: Mapped[str] = mapped_column(default="object")
    hook_retry_seconds: Mapped[float] = mapped_column(default=5)
    hook_allow_addresses: Mapped[list[str]] = mapped_column(default=list)
    hook_basic_auth: Mapped[str | Unreadable | None] = mapped_column(Secret)
    hook_fields: Mapped[dict[str, Any]] = mapped_column(default=dict)

    presence_source: Mapped[str] = mapped_column(default="ringostat")
    presence_api_url: Mapped[str] = mapped_column(default="https://api.ringostat.net")
    presence_auth_key: Mapped[str | Unreadable | None] = mapped_column(Secret)
    presence_online_from: Mapped[str] = mapped_column(default="sip")
    presence_project_id: Mapped[str] = mapped_column(default="")
    presence_token: Mapped[str | Unreadable | None] = mapped_column(Secret)
    presence_with_do_not_disturb: Mapped[bool] = mapped_column(default=False)
    presence_poll_seconds: Mapped[float] = mapped_column(default=2)
    presence_fresh_seconds: Mapped[float] = mapped_column(default=5)
    presence_when_unknown: Mapped[str] = mapped_column(default="last_known")
    presence_last_known_seconds: Mapped[float] = mapped_column(default=60)
    presence_away_seconds: Mapped[float] = mapped_column(default=30, server_default="30")
    presence_call_log_days: Mapped[int] = mapped_column(default=0, server_default="0")  # 0: it is not read

    cool_down_seconds: Mapped[float] = mapped_column(default=30)  # after a no-answer
    break_after_no_answers: Mapped[int] = mapped_column(default=3)  # in a row; 0: never
    keep_days: Mapped[int] = mapped_column(default=90)  # how long the call log is kept
    mask_numbers: Mapped[bool] = mapped_column(default=False)  # show callers as 38050***1122
    secrets_revision: Mapped[int] = mapped_column(default=0)  # counts up when a credential or token changes


class HookToken(Base):
    """The secret part of a hook URL, looked up by its hash. A replaced one works until `expires_at`."""

    __tablename__ = "hook_tokens"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _of_project()
    token_hash: Mapped[str] = mapped_column(unique=True)
    token: Mapped[str | Unreadable] = mapped_column(Secret)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "project_id"),)


class Schedule(_Configured, Base):
    """Weekly hours in a time zone, dated exceptions, and an override that expires, in the notation of the YAML."""

    __tablename__ = "schedules"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _of_project()
    name: Mapped[str]
    time_zone: Mapped[str]
    open: Mapped[dict[str, Any]] = mapped_column(default=dict)  # {"mon-fri": ["09:00-18:00"]}
    exceptions: Mapped[dict[str, Any]] = mapped_column(default=dict)  # {"2026-12-25": "closed"}
    override: Mapped[str] = mapped_column(default="")  # "", "open" or "closed"
    override_until: Mapped[datetime | None]

    __table_args__ = (UniqueConstraint("project_id", "name"),)


class Agent(_Configured, Base):
    """A person who takes calls."""

    __tablename__ = "agents"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _of_project()
    name: Mapped[str]
    paused: Mapped[bool] = mapped_column(default=False)
    wrap_up_seconds: Mapped[float] = mapped_column(default=0)
    daily_cap: Mapped[int | None]
    external_id: Mapped[str] = mapped_column(default="")  # the platform's own id, Ringostat: the staff id
    hours_id: Mapped[int | None] = mapped_column(ForeignKey("schedules.id", ondelete="RESTRICT"))
    deputy_id: Mapped[int | None] = mapped_column(ForeignKey("agents.id", ondelete="RESTRICT"))
    away_until: Mapped[datetime | None]

    sip_logins: Mapped[list[SipLogin]] = relationship(
        cascade="all, delete-orphan", order_by="SipLogin.position", lazy="selectin"
    )

    __table_args__ = (UniqueConstraint("project_id", "name"), Index(None, "hours_id"), Index(None, "deputy_id"))


class SipLogin(Base):
    """An agent's account on the PBX. One agent owns it; the logins are tried in the order of `position`."""

    __tablename__ = "sip_logins"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _of_project()
    agent_id: Mapped[int] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"))
    login: Mapped[str]
    position: Mapped[int] = mapped_column(default=0)

    __table_args__ = (UniqueConstraint("project_id", "login"), Index(None, "agent_id"))


class Group(_Configured, Base):
    """Agents who answer one kind of call, and the order in which they are tried."""

    __tablename__ = "groups"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _of_project()
    name: Mapped[str]
    strategy: Mapped[str] = mapped_column(default="round_robin")
    ring_seconds: Mapped[float] = mapped_column(default=25)
    overflow: Mapped[str | None]
    position: Mapped[int] = mapped_column(default=0)

    members: Mapped[list[Member]] = relationship(
        cascade="all, delete-orphan", order_by="(Member.tier, Member.position)", lazy="selectin"
    )

    __table_args__ = (UniqueConstraint("project_id", "name"),)


class Member(Base):
    """An agent's place in a group."""

    __tablename__ = "members"

    group_id: Mapped[int] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True)
    agent_id: Mapped[int] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True)
    tier: Mapped[int] = mapped_column(default=1)
    position: Mapped[int] = mapped_column(default=0)
    weight: Mapped[int] = mapped_column(default=1)
    hours_id: Mapped[int | None] = mapped_column(ForeignKey("schedules.id", ondelete="RESTRICT"))

    __table_args__ = (Index(None, "agent_id"), Index(None, "hours_id"), CheckConstraint("weight > 0", name="weight"))


class Rule(_Configured, Base):
    """Conditions → chain of groups → overflow.

    `conditions` holds the keys of the YAML's `when`. References to other rows are columns, so that the database refuses
    to delete a row that a rule needs.
    """

    __tablename__ = "rules"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _of_project()
    position: Mapped[int] = mapped_column(default=0)
    name: Mapped[str]
    enabled: Mapped[bool] = mapped_column(default=True)
    conditions: Mapped[dict[str, Any]] = mapped_column(default=dict)
    inside_id: Mapped[int | None] = mapped_column(ForeignKey("schedules.id", ondelete="RESTRICT"))
    outside_id: Mapped[int | None] = mapped_column(ForeignKey("schedules.id", ondelete="RESTRICT"))
    free_group_id: Mapped[int | None] = mapped_column(ForeignKey("groups.id", ondelete="RESTRICT"))
    free_fewer_than: Mapped[int] = mapped_column(default=0)
    prefer: Mapped[str] = mapped_column(default="")  # "", "last_agent" or "param"
    prefer_param: Mapped[str] = mapped_column(default="")
    prefer_days: Mapped[int] = mapped_column(default=30)
    overflow: Mapped[str | None]

    groups: Mapped[list[RuleGroup]] = relationship(
        cascade="all, delete-orphan", order_by="RuleGroup.position", lazy="selectin"
    )

    __table_args__ = (
        UniqueConstraint("project_id", "name"),
        Index(None, "project_id", "position"),
        Index(None, "inside_id"),
        Index(None, "outside_id"),
        Index(None, "free_group_id"),
    )


class RuleTest(_Configured, Base):
    """A call whose answer must stay what it is. All but the name is in `more`."""

    __tablename__ = "rule_tests"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = _of_project()
    name: Mapped[str]

    __table_args__ = (UniqueConstraint("project_id", "name"),)


class RuleGroup(Base):
    """A group's place in a rule's chain."""

    __tablename__ = "rule_groups"

    rule_id: Mapped[int] = mapped_column(ForeignKey("rules.id", ondelete="CASCADE"), primary_key=True)
    group_id: Mapped[int] = mapped_column(ForeignKey("groups.id", ondelete="RESTRICT"), primary_key=True)
    position: Mapped[int] = mapped_column(default=0)

    __table_args__ = (Index(None, "group_id"),)


class ConfigVersion(Base):
    """A complete published configuration without secrets, which the hook and recomputations read."""

    __tablename__ = "config_versions"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    version: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    published_at: Mapped[datetime]
    actor: Mapped[str]
    document: Mapped[dict[str, Any]]
    comment: Mapped[str] = mapped_column(default="", server_default="")


class Draft(Base):
    """Changes of a configuration that are collected, to be published together: see configuration.drafts."""

    __tablename__ = "drafts"
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - the audit trail names drafts by id, so none is reused

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), unique=True)
    base_version: Mapped[int] = mapped_column(BigInteger)  # that it was compared with last
    base: Mapped[dict[str, Any]] = mapped_column(deferred=True)  # the document of that version
    document: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    conflicts: Mapped[list[Any]] = mapped_column(JSON)  # [kind, id, key] of what was changed otherwise meanwhile
    changes: Mapped[int]  # how many things it changes
    started_at: Mapped[datetime]
    changed_at: Mapped[datetime]
    changed_by: Mapped[str]
    publish_at: Mapped[datetime | None] = mapped_column(index=True)
    publish_by: Mapped[str] = mapped_column(default="")  # who planned it
    comment: Mapped[str] = mapped_column(default="")  # of the version that is planned
    accepted: Mapped[list[str]] = mapped_column(default=list)  # the names of tests that may fail then
    trouble: Mapped[str] = mapped_column(default="")  # why it could not be published as planned


# ---- observations


class Presence(Base):
    """The newest reading of a project's source, its errors, and which process polls it."""

    __tablename__ = "presence"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    snapshot_id: Mapped[int | None] = mapped_column(BigId)
    began_at: Mapped[datetime | None]  # when the request of the newest good reading began
    previous_at: Mapped[datetime | None]  # and that of the good reading before it
    poll_ms: Mapped[int | None]
    failures: Mapped[int] = mapped_column(default=0)  # in a row
    error_code: Mapped[str] = mapped_column(default="")
    error_message: Mapped[str] = mapped_column(default="")
    error_remedy: Mapped[str] = mapped_column(default="")
    error_at: Mapped[datetime | None]
    next_poll_at: Mapped[datetime | None]
    asking_until: Mapped[datetime | None]  # until then at the latest, a process is asking the source
    lease_holder: Mapped[str] = mapped_column(default="")
    lease_until: Mapped[datetime | None]


class PresenceSnapshot(Base):
    """An answer of a source, to which decisions refer. An answer equal to the one before makes no new row."""

    __tablename__ = "presence_snapshots"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    project_id: Mapped[int] = _of_project()
    began_at: Mapped[datetime]
    online: Mapped[list[str]]
    speaking: Mapped[list[str]]

    __table_args__ = (Index(None, "project_id", "began_at"),)


class LoginState(Base):
    """The state of a SIP login, with or without an owner: by polls (`online`, `speaking`) and by events (`event_*`)."""

    __tablename__ = "login_states"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    login: Mapped[str] = mapped_column(primary_key=True)
    online: Mapped[bool] = mapped_column(default=False)
    speaking: Mapped[bool] = mapped_column(default=False)
    since_at: Mapped[datetime]  # of the last change
    event_speaking: Mapped[bool | None]
    event_at: Mapped[datetime | None]
    event_call_id: Mapped[str] = mapped_column(default="")

    __table_args__ = (Index(None, "project_id", "event_at"),)


class HeardCall(Base):
    """The events of one call, ours or not, so that late and repeated ones change nothing. Stored for a day."""

    __tablename__ = "heard_calls"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    call_id: Mapped[str] = mapped_column(primary_key=True)
    heard_at: Mapped[datetime]  # the first time
    talked: Mapped[list[str]] = mapped_column(default=list)  # logins and numbers that picked up, in that order
    ended_at: Mapped[datetime | None]
    # What conclusions have changed of agents, so that it can be undone: see core/lifecycle.py.
    effects: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    talks: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # by agent: [since (µs), seconds]

    __table_args__ = (Index(None, "project_id", "heard_at"),)


class CallLog(Base):
    """How far the platform's own call log has been read, and when to ask for more."""

    __tablename__ = "call_logs"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    known_since: Mapped[datetime | None]
    known_until: Mapped[datetime | None]
    next_at: Mapped[datetime]
    failures: Mapped[int] = mapped_column(default=0)  # in a row
    error_code: Mapped[str] = mapped_column(default="")
    error_message: Mapped[str] = mapped_column(default="")
    error_remedy: Mapped[str] = mapped_column(default="")


class LoggedTalk(Base):
    """When a login last talked with a caller, by the platform's call log. Its owner is looked up for each call."""

    __tablename__ = "logged_talks"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    caller: Mapped[str] = mapped_column(primary_key=True)
    login: Mapped[str] = mapped_column(primary_key=True)
    talked_at: Mapped[datetime]

    __table_args__ = (Index(None, "project_id", "talked_at"),)


class LastTalk(Base):
    """When an agent last talked with a caller, in calls that were deleted: for rules that look back further.

    No foreign key to the agent, as in a decision: if a deletion is undone, the agent has the same id.
    """

    __tablename__ = "last_talks"

    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True)
    caller: Mapped[str] = mapped_column(primary_key=True)
    agent_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    talked_at: Mapped[datetime]

    __table_args__ = (Index(None, "project_id", "talked_at"),)


class AgentState(Base):
    """What an agent declared, and the clocks that calls change."""

    __tablename__ = "agent_states"

    agent_id: Mapped[int] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[int] = _of_project()
    status: Mapped[str] = mapped_column(default="available")
    status_since_at: Mapped[datetime | None]
    status_reason: Mapped[str] = mapped_column(default="")  # "" by a person; "no_answers": set after missed calls
    paused_until: Mapped[datetime | None]
    wrap_up_until: Mapped[datetime | None]
    cooling_until: Mapped[datetime | None]
    missed_day: Mapped[date | None]  # the project's local day of `no_answers` and `declines`
    no_answers: Mapped[int] = mapped_column(default=0)  # in a row
    declines: Mapped[int] = mapped_column(default=0, server_default="0")  # in a row
    day: Mapped[date | None]  # the project's local day of `answered_today` and `talked_today`
    answered_today: Mapped[int] = mapped_column(default=0)
    talked_today: Mapped[int] = mapped_column(default=0, server_default="0")  # seconds
    last_talk_end_at: Mapped[datetime | None]
    talk_id: Mapped[int | None] = mapped_column(BigInteger)  # the decision whose talk ended then, by a conclusion
    available_since_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "project_id"),)


class MemberClock(Base):
    """A member's turn in a group. A table of its own, so that editing a group resets nobody's turn."""

    __tablename__ = "member_clocks"

    group_id: Mapped[int] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True)
    agent_id: Mapped[int] = mapped_column(ForeignKey("agents.id", ondelete="CASCADE"), primary_key=True)
    last_offered: Mapped[int] = mapped_column(BigInteger, default=0)  # number of the offer within the group; 0: never
    virtual_time: Mapped[int] = mapped_column(BigInteger, default=0)  # of `weighted`: see core/strategies.py
    head_start: Mapped[int | None]  # calls counted to a newcomer of `day`: see core/strategies.py
    head_start_seconds: Mapped[int] = mapped_column(default=0, server_default="0")  # the same in seconds of talk
    day: Mapped[date | None]
    weight: Mapped[int] = mapped_column(default=0, server_default="0")  # the member's when this was written; 0: unknown
    tier: Mapped[int] = mapped_column(default=0, server_default="0")
    left_at: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")  # see core.model.MemberClock

    __table_args__ = (Index(None, "agent_id"),)


# ---- reservations and decisions


class Reservation(Base):
    """A lease of an agent for one call. The primary key allows one per agent.

    It is not deleted with the agent: the phone goes on ringing.
    """

    __tablename__ = "reservations"

    agent_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    project_id: Mapped[int] = _of_project()
    group_id: Mapped[int | None]
    decision_id: Mapped[int] = mapped_column(BigInteger)
    call_id: Mapped[str]
    sip_login: Mapped[str]
    claimed_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    # No index but the key: there is at most one row per agent, and each index costs every call a written page.


class ReservedPhone(Base):
    """A phone reserved with its agent, whoever owns it later. It ends with the lease; the primary key allows one."""

    __tablename__ = "reserved_phones"

    project_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    phone: Mapped[str] = mapped_column(primary_key=True)  # a SIP login as core.phones.phone_of returns it
    agent_id: Mapped[int] = mapped_column(ForeignKey("reservations.agent_id", ondelete="CASCADE"))
    call_id: Mapped[str]
    expires_at: Mapped[datetime]

    __table_args__ = (Index(None, "agent_id"),)


class Decision(Base):
    """Our answer to one question, its reasons and its outcome. No foreign keys: the rows it names may be deleted."""

    __tablename__ = "decisions"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    project_id: Mapped[int] = _of_project()
    call_id: Mapped[str]
    step: Mapped[str]
    attempt: Mapped[int] = mapped_column(default=0)  # the same question asked again after the retry window
    asked_at: Mapped[datetime]
    caller: Mapped[str]
    dialed: Mapped[str]
    rule_id: Mapped[int | None]
    group_id: Mapped[int | None]
    agent_id: Mapped[int | None]
    sip_login: Mapped[str] = mapped_column(default="")
    destination: Mapped[str]
    result: Mapped[str]  # see core.model.Result
    degraded: Mapped[str] = mapped_column(default="")  # "", or the error because of which the answer may differ
    config_version: Mapped[int] = mapped_column(BigInteger)
    snapshot_id: Mapped[int | None] = mapped_column(BigInteger)
    latency_us: Mapped[int]

    outcome: Mapped[str] = mapped_column(default="")  # "" while open, else see core.model.Outcome
    inferred: Mapped[bool] = mapped_column(default=False)  # the outcome was concluded, not reported
    answered_agent_id: Mapped[int | None]
    answered_login: Mapped[str] = mapped_column(default="")
    answered_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    waited_seconds: Mapped[float | None]
    talked_seconds: Mapped[float | None]
    disposition: Mapped[str] = mapped_column(default="")
    # The question, the inputs and the reasons, read by `record_of` in db/records.py: packed, or plain from an earlier
    # release. The largest column is last, so that SQLite reads the others without its overflow pages.
    record: Mapped[dict[str, Any]]
    packed: Mapped[bytes | None]
    is_test: Mapped[bool] = mapped_column(default=False, server_default=text("false"))  # takes no room in SQLite's row

    __table_args__ = (
        Index(
            "uq_decisions_question",
            "project_id",
            "call_id",
            "step",
            "attempt",
            unique=True,
            sqlite_where=text("call_id <> ''"),
            postgresql_where=text("call_id <> ''"),
        ),
        # Agent and rule are in this index for the log's filters: an index of their own would cost every call a page.
        Index(None, "project_id", "asked_at", "agent_id", "rule_id"),
        Index(None, "project_id", "caller", "id"),
        # Calls that are not over: a few hundred entries, however long the log is. Costs each call 2 to 4 %.
        Index(
            "ix_decisions_unfinished",
            "project_id",
            "asked_at",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index(
            "ix_decisions_tests",
            "project_id",
            "asked_at",
            sqlite_where=text("is_test = 1"),
            postgresql_where=text("is_test"),
        ),
    )


class RefusedRequest(Base):
    """A request that a project's hook refused, for its admin to see why."""

    __tablename__ = "refused_requests"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    project_id: Mapped[int] = _of_project()
    at: Mapped[datetime]
    reason: Mapped[str]
    remote: Mapped[str]
    request: Mapped[dict[str, Any]]

    __table_args__ = (Index(None, "project_id", "id"),)


class Study(Base):
    """A question to the call log that a process of its own answers: see explanation/studies.py."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    project_id: Mapped[int] = _of_project()
    kind: Mapped[str]
    document: Mapped[dict[str, Any]]  # the configuration that is looked at
    parameters: Mapped[dict[str, Any]]
    started_at: Mapped[datetime]
    started_by: Mapped[str]
    heartbeat_at: Mapped[datetime]
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)  # 0: not known yet
    state: Mapped[str] = mapped_column(default="running")  # see explanation.studies.State
    error: Mapped[str] = mapped_column(default="")
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    __table_args__ = (
        Index(None, "project_id"),
        Index(
            "uq_studies_running",
            "project_id",
            unique=True,
            sqlite_where=text("state = 'running'"),
            postgresql_where=text("state = 'running'"),
        ),
    )


# ---- people and what they changed


class User(_Revised, Base):
    """A person who may sign in."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)  # lower case
    name: Mapped[str] = mapped_column(default="")
    role: Mapped[str]  # owner, editor, viewer
    password_hash: Mapped[str] = mapped_column(default="")  # argon2; "" until the one-time link was used
    session_epoch: Mapped[int] = mapped_column(default=0)  # signing out everywhere counts it up
    language: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime | None]
    disabled_at: Mapped[datetime | None]


class OneTimeLink(Base):
    """A link that works once: for the first owner, an invited user, a forgotten password."""

    __tablename__ = "one_time_links"

    token_hash: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))  # None: the first owner
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "user_id"),)


class EndedSession(Base):
    """A session that was signed out. Stored until its cookie expires."""

    __tablename__ = "ended_sessions"

    id_hash: Mapped[str] = mapped_column(primary_key=True)
    ended_at: Mapped[datetime]

    __table_args__ = (Index(None, "ended_at"),)


class SignInFailure(Base):
    """Recent wrong passwords by account, address and browser, as a keyed hash. Shared by all processes."""

    __tablename__ = "sign_in_failures"

    key: Mapped[str] = mapped_column(primary_key=True)
    failures: Mapped[int] = mapped_column(default=0)
    last_at: Mapped[datetime]

    __table_args__ = (Index(None, "last_at"),)


class AuditEntry(Base):
    """Who changed what and when, with the values before and after. Never a secret's value."""

    __tablename__ = "audit_entries"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str]  # an email, or "cli", "demo"
    project_id: Mapped[int | None]
    version: Mapped[int | None] = mapped_column(BigInteger)  # of the configuration that this change made
    draft_id: Mapped[int | None]  # of the draft that this change was collected in
    action: Mapped[str]  # created, changed, deleted, signed_in, …
    subject: Mapped[str]  # agent, group, rule, schedule, project, user, …
    subject_id: Mapped[int | None]
    subject_name: Mapped[str] = mapped_column(default="")
    before: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    after: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    __table_args__ = (Index(None, "project_id", "id"), Index(None, "project_id", "subject", "id"), Index(None, "at"))
