"""The first schema.

A migration must be safe for the release before it: that one goes on serving calls while this runs.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "e7bb77a9038a"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("subject_id", sa.Integer(), nullable=True),
        sa.Column("subject_name", sa.String(), nullable=False),
        sa.Column("before", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("after", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
    )
    with op.batch_alter_table("audit_entries", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_entries_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_entries_project_id_id"), ["project_id", "id"], unique=False)

    op.create_table(
        "projects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("time_zone", sa.String(), nullable=False),
        sa.Column("country", sa.String(), nullable=False),
        sa.Column("overflow", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=True),
        sa.Column("hook_answer", sa.String(), nullable=False),
        sa.Column("hook_key", sa.String(), nullable=False),
        sa.Column("hook_rpc_result", sa.String(), nullable=False),
        sa.Column("hook_retry_seconds", sa.Double(), nullable=False),
        sa.Column("hook_allow_addresses", sa.JSON(), nullable=False),
        sa.Column("hook_basic_auth", sa.Text(), nullable=True),
        sa.Column("hook_fields", sa.JSON(), nullable=False),
        sa.Column("presence_source", sa.String(), nullable=False),
        sa.Column("presence_api_url", sa.String(), nullable=False),
        sa.Column("presence_auth_key", sa.Text(), nullable=True),
        sa.Column("presence_online_from", sa.String(), nullable=False),
        sa.Column("presence_project_id", sa.String(), nullable=False),
        sa.Column("presence_token", sa.Text(), nullable=True),
        sa.Column("presence_with_do_not_disturb", sa.Boolean(), nullable=False),
        sa.Column("presence_poll_seconds", sa.Double(), nullable=False),
        sa.Column("presence_fresh_seconds", sa.Double(), nullable=False),
        sa.Column("presence_when_unknown", sa.String(), nullable=False),
        sa.Column("presence_last_known_seconds", sa.Double(), nullable=False),
        sa.Column("cool_down_seconds", sa.Double(), nullable=False),
        sa.Column("break_after_no_answers", sa.Integer(), nullable=False),
        sa.Column("keep_days", sa.Integer(), nullable=False),
        sa.Column("mask_numbers", sa.Boolean(), nullable=False),
        sa.Column("secrets_revision", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("name", name=op.f("uq_projects_name")),
    )
    op.create_table(
        "sign_in_failures",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("last_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_sign_in_failures")),
    )
    with op.batch_alter_table("sign_in_failures", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sign_in_failures_last_at"), ["last_at"], unique=False)

    op.create_table(
        "users",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("email", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=False),
        sa.Column("session_epoch", sa.Integer(), nullable=False),
        sa.Column("language", sa.String(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=True),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("email", name=op.f("uq_users_email")),
    )
    op.create_table(
        "config_versions",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("document", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_config_versions_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "version", name=op.f("pk_config_versions")),
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("call_id", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("dialed", sa.String(), nullable=False),
        sa.Column("rule_id", sa.Integer(), nullable=True),
        sa.Column("group_id", sa.Integer(), nullable=True),
        sa.Column("agent_id", sa.Integer(), nullable=True),
        sa.Column("sip_login", sa.String(), nullable=False),
        sa.Column("destination", sa.String(), nullable=False),
        sa.Column("result", sa.String(), nullable=False),
        sa.Column("degraded", sa.String(), nullable=False),
        sa.Column("config_version", sa.BigInteger(), nullable=False),
        sa.Column("snapshot_id", sa.BigInteger(), nullable=True),
        sa.Column("latency_us", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("inferred", sa.Boolean(), nullable=False),
        sa.Column("answered_agent_id", sa.Integer(), nullable=True),
        sa.Column("answered_login", sa.String(), nullable=False),
        sa.Column("answered_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("waited_seconds", sa.Double(), nullable=True),
        sa.Column("talked_seconds", sa.Double(), nullable=True),
        sa.Column("disposition", sa.String(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_decisions_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decisions")),
    )
    with op.batch_alter_table("decisions", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_decisions_project_id_asked_at_agent_id_rule_id"),
            ["project_id", "asked_at", "agent_id", "rule_id"],
            unique=False,
        )
        batch_op.create_index(
            batch_op.f("ix_decisions_project_id_caller_id"), ["project_id", "caller", "id"], unique=False
        )
        batch_op.create_index(
            "ix_decisions_unfinished",
            ["project_id", "asked_at"],
            unique=False,
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )
        batch_op.create_index(
            "uq_decisions_question",
            ["project_id", "call_id", "step", "attempt"],
            unique=True,
            sqlite_where=sa.text("call_id <> ''"),
            postgresql_where=sa.text("call_id <> ''"),
        )

    op.create_table(
        "groups",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("strategy", sa.String(), nullable=False),
        sa.Column("ring_seconds", sa.Double(), nullable=False),
        sa.Column("overflow", sa.String(), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_groups_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groups")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_groups_project_id_name")),
    )
    op.create_table(
        "heard_calls",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("call_id", sa.String(), nullable=False),
        sa.Column("heard_at", sa.BigInteger(), nullable=False),
        sa.Column("talked", sa.JSON(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_heard_calls_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "call_id", name=op.f("pk_heard_calls")),
    )
    with op.batch_alter_table("heard_calls", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_heard_calls_project_id_heard_at"), ["project_id", "heard_at"], unique=False
        )

    op.create_table(
        "hook_tokens",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("token_hash", sa.String(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_hook_tokens_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hook_tokens")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_hook_tokens_token_hash")),
    )
    with op.batch_alter_table("hook_tokens", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_hook_tokens_project_id"), ["project_id"], unique=False)

    op.create_table(
        "login_states",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("login", sa.String(), nullable=False),
        sa.Column("online", sa.Boolean(), nullable=False),
        sa.Column("speaking", sa.Boolean(), nullable=False),
        sa.Column("since_at", sa.BigInteger(), nullable=False),
        sa.Column("event_speaking", sa.Boolean(), nullable=True),
        sa.Column("event_at", sa.BigInteger(), nullable=True),
        sa.Column("event_call_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_login_states_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "login", name=op.f("pk_login_states")),
    )
    with op.batch_alter_table("login_states", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_login_states_project_id_event_at"), ["project_id", "event_at"], unique=False
        )

    op.create_table(
        "one_time_links",
        sa.Column("token_hash", sa.String(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_one_time_links_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_one_time_links")),
    )
    with op.batch_alter_table("one_time_links", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_one_time_links_user_id"), ["user_id"], unique=False)

    op.create_table(
        "presence",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("snapshot_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=True),
        sa.Column("began_at", sa.BigInteger(), nullable=True),
        sa.Column("poll_ms", sa.Integer(), nullable=True),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.String(), nullable=False),
        sa.Column("error_message", sa.String(), nullable=False),
        sa.Column("error_remedy", sa.String(), nullable=False),
        sa.Column("error_at", sa.BigInteger(), nullable=True),
        sa.Column("next_poll_at", sa.BigInteger(), nullable=True),
        sa.Column("asking_until", sa.BigInteger(), nullable=True),
        sa.Column("lease_holder", sa.String(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_presence_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_presence")),
    )
    op.create_table(
        "presence_snapshots",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.Column("online", sa.JSON(), nullable=False),
        sa.Column("speaking", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_presence_snapshots_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_presence_snapshots")),
    )
    with op.batch_alter_table("presence_snapshots", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_presence_snapshots_project_id_began_at"), ["project_id", "began_at"], unique=False
        )

    op.create_table(
        "refused_requests",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("remote", sa.String(), nullable=False),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_refused_requests_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refused_requests")),
    )
    with op.batch_alter_table("refused_requests", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_refused_requests_project_id_id"), ["project_id", "id"], unique=False)

    op.create_table(
        "schedules",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("time_zone", sa.String(), nullable=False),
        sa.Column("open", sa.JSON(), nullable=False),
        sa.Column("exceptions", sa.JSON(), nullable=False),
        sa.Column("override", sa.String(), nullable=False),
        sa.Column("override_until", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_schedules_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedules")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_schedules_project_id_name")),
    )
    op.create_table(
        "agents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("paused", sa.Boolean(), nullable=False),
        sa.Column("wrap_up_seconds", sa.Double(), nullable=False),
        sa.Column("daily_cap", sa.Integer(), nullable=True),
        sa.Column("external_id", sa.String(), nullable=False),
        sa.Column("hours_id", sa.Integer(), nullable=True),
        sa.Column("deputy_id", sa.Integer(), nullable=True),
        sa.Column("away_until", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["deputy_id"], ["agents.id"], name=op.f("fk_agents_deputy_id_agents"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["hours_id"], ["schedules.id"], name=op.f("fk_agents_hours_id_schedules"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_agents_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_agents")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_agents_project_id_name")),
    )
    with op.batch_alter_table("agents", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_agents_deputy_id"), ["deputy_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_agents_hours_id"), ["hours_id"], unique=False)

    op.create_table(
        "rules",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("conditions", sa.JSON(), nullable=False),
        sa.Column("inside_id", sa.Integer(), nullable=True),
        sa.Column("outside_id", sa.Integer(), nullable=True),
        sa.Column("free_group_id", sa.Integer(), nullable=True),
        sa.Column("free_fewer_than", sa.Integer(), nullable=False),
        sa.Column("prefer", sa.String(), nullable=False),
        sa.Column("prefer_param", sa.String(), nullable=False),
        sa.Column("prefer_days", sa.Integer(), nullable=False),
        sa.Column("overflow", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["free_group_id"], ["groups.id"], name=op.f("fk_rules_free_group_id_groups"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["inside_id"], ["schedules.id"], name=op.f("fk_rules_inside_id_schedules"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["outside_id"], ["schedules.id"], name=op.f("fk_rules_outside_id_schedules"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_rules_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rules")),
        sa.UniqueConstraint("project_id", "name", name=op.f("uq_rules_project_id_name")),
    )
    with op.batch_alter_table("rules", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rules_free_group_id"), ["free_group_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_rules_inside_id"), ["inside_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_rules_outside_id"), ["outside_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_rules_project_id_position"), ["project_id", "position"], unique=False)

    op.create_table(
        "agent_states",
        sa.Column("agent_id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("status_since_at", sa.BigInteger(), nullable=True),
        sa.Column("status_reason", sa.String(), nullable=False),
        sa.Column("paused_until", sa.BigInteger(), nullable=True),
        sa.Column("wrap_up_until", sa.BigInteger(), nullable=True),
        sa.Column("cooling_until", sa.BigInteger(), nullable=True),
        sa.Column("no_answers", sa.Integer(), nullable=False),
        sa.Column("day", sa.Date(), nullable=True),
        sa.Column("answered_today", sa.Integer(), nullable=False),
        sa.Column("last_talk_end_at", sa.BigInteger(), nullable=True),
        sa.Column("available_since_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_agent_states_agent_id_agents"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_agent_states_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("agent_id", name=op.f("pk_agent_states")),
    )
    with op.batch_alter_table("agent_states", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_agent_states_project_id"), ["project_id"], unique=False)

    op.create_table(
        "member_clocks",
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("agent_id", sa.Integer(), nullable=False),
        sa.Column("last_offered", sa.BigInteger(), nullable=False),
        sa.Column("virtual_time", sa.BigInteger(), nullable=False),
        sa.Column("head_start", sa.Integer(), nullable=True),
        sa.Column("day", sa.Date(), nullable=True),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_member_clocks_agent_id_agents"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_member_clocks_group_id_groups"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("group_id", "agent_id", name=op.f("pk_member_clocks")),
    )
    with op.batch_alter_table("member_clocks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_member_clocks_agent_id"), ["agent_id"], unique=False)

    op.create_table(
        "members",
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("agent_id", sa.Integer(), nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("hours_id", sa.Integer(), nullable=True),
        sa.CheckConstraint("weight > 0", name=op.f("ck_members_weight")),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_members_agent_id_agents"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_members_group_id_groups"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["hours_id"], ["schedules.id"], name=op.f("fk_members_hours_id_schedules"), ondelete="RESTRICT"
        ),
        sa.PrimaryKeyConstraint("group_id", "agent_id", name=op.f("pk_members")),
    )
    with op.batch_alter_table("members", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_members_agent_id"), ["agent_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_members_hours_id"), ["hours_id"], unique=False)

    op.create_table(
        "reservations",
        sa.Column("agent_id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=True),
        sa.Column("decision_id", sa.BigInteger(), nullable=False),
        sa.Column("call_id", sa.String(), nullable=False),
        sa.Column("sip_login", sa.String(), nullable=False),
        sa.Column("claimed_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_reservations_agent_id_agents"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_reservations_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("agent_id", name=op.f("pk_reservations")),
    )
    op.create_table(
        "rule_groups",
        sa.Column("rule_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["group_id"], ["groups.id"], name=op.f("fk_rule_groups_group_id_groups"), ondelete="RESTRICT"
        ),
        sa.ForeignKeyConstraint(
            ["rule_id"], ["rules.id"], name=op.f("fk_rule_groups_rule_id_rules"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rule_id", "group_id", name=op.f("pk_rule_groups")),
    )
    with op.batch_alter_table("rule_groups", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rule_groups_group_id"), ["group_id"], unique=False)

    op.create_table(
        "sip_logins",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("agent_id", sa.Integer(), nullable=False),
        sa.Column("login", sa.String(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["agent_id"], ["agents.id"], name=op.f("fk_sip_logins_agent_id_agents"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_sip_logins_project_id_projects"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sip_logins")),
        sa.UniqueConstraint("project_id", "login", name=op.f("uq_sip_logins_project_id_login")),
    )
    with op.batch_alter_table("sip_logins", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sip_logins_agent_id"), ["agent_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("sip_logins", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sip_logins_agent_id"))

    op.drop_table("sip_logins")
    with op.batch_alter_table("rule_groups", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_rule_groups_group_id"))

    op.drop_table("rule_groups")
    op.drop_table("reservations")
    with op.batch_alter_table("members", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_members_hours_id"))
        batch_op.drop_index(batch_op.f("ix_members_agent_id"))

    op.drop_table("members")
    with op.batch_alter_table("member_clocks", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_member_clocks_agent_id"))

    op.drop_table("member_clocks")
    with op.batch_alter_table("agent_states", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_agent_states_project_id"))

    op.drop_table("agent_states")
    with op.batch_alter_table("rules", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_rules_project_id_position"))
        batch_op.drop_index(batch_op.f("ix_rules_outside_id"))
        batch_op.drop_index(batch_op.f("ix_rules_inside_id"))
        batch_op.drop_index(batch_op.f("ix_rules_free_group_id"))

    op.drop_table("rules")
    with op.batch_alter_table("agents", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_agents_hours_id"))
        batch_op.drop_index(batch_op.f("ix_agents_deputy_id"))

    op.drop_table("agents")
    op.drop_table("schedules")
    with op.batch_alter_table("refused_requests", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_refused_requests_project_id_id"))

    op.drop_table("refused_requests")
    with op.batch_alter_table("presence_snapshots", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_presence_snapshots_project_id_began_at"))

    op.drop_table("presence_snapshots")
    op.drop_table("presence")
    with op.batch_alter_table("one_time_links", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_one_time_links_user_id"))

    op.drop_table("one_time_links")
    with op.batch_alter_table("login_states", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_login_states_project_id_event_at"))

    op.drop_table("login_states")
    with op.batch_alter_table("hook_tokens", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_hook_tokens_project_id"))

    op.drop_table("hook_tokens")
    with op.batch_alter_table("heard_calls", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_heard_calls_project_id_heard_at"))

    op.drop_table("heard_calls")
    op.drop_table("groups")
    with op.batch_alter_table("decisions", schema=None) as batch_op:
        batch_op.drop_index(
            "uq_decisions_question", sqlite_where=sa.text("call_id <> ''"), postgresql_where=sa.text("call_id <> ''")
        )
        batch_op.drop_index(
            "ix_decisions_unfinished",
            sqlite_where=sa.text("ended_at IS NULL"),
            postgresql_where=sa.text("ended_at IS NULL"),
        )
        batch_op.drop_index(batch_op.f("ix_decisions_project_id_caller_id"))
        batch_op.drop_index(batch_op.f("ix_decisions_project_id_asked_at_agent_id_rule_id"))

    op.drop_table("decisions")
    op.drop_table("config_versions")
    op.drop_table("users")
    with op.batch_alter_table("sign_in_failures", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sign_in_failures_last_at"))

    op.drop_table("sign_in_failures")
    op.drop_table("projects")
    with op.batch_alter_table("audit_entries", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_entries_project_id_id"))
        batch_op.drop_index(batch_op.f("ix_audit_entries_at"))

    op.drop_table("audit_entries")
