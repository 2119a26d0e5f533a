"""Agents, groups, rules, schedules and the hook on SQLite and on PostgreSQL: their queries mean the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from router.admin.views.rules import count_matches
from router.configuration import apply, load
from router.db import models
from tests.admin.conftest import Admin

CONFIG = """
projects:
  - name: acme
    overflow: "380441234567"
    presence: {fresh_seconds: 3600}
    schedules:
      - {name: office hours, open: {mon-fri: ["09:00-18:00"]}}
    agents:
      - {name: Alice, sip_logins: [acme_alice], hours: office hours}
      - {name: Bob, sip_logins: [acme_bob]}
    groups:
      - {name: sales, members: [{agent: Alice}, {agent: Bob}]}
    rules:
      - {name: day, when: {schedule: office hours}, groups: [sales]}
      - {name: everyone, groups: [sales]}
"""


def test_pages_and_deeds_work_on_either_database(admin_everywhere: Admin) -> None:
    admin = admin_everywhere
    apply(admin.database, load(CONFIG, {}), actor="test")
    project_id = admin.one(models.Project, name="acme").id
    now = datetime.now(UTC)
    with admin.database.writing() as session:
        snapshot = models.PresenceSnapshot(project_id=project_id, began_at=now, online=["acme_bob", "new"], speaking=[])
        session.add(snapshot)
        session.flush()
        session.merge(models.Presence(project_id=project_id, snapshot_id=snapshot.id, began_at=now, failures=0))
        session.add(models.LoginState(project_id=project_id, login="new", online=True, speaking=False, since_at=now))
    token = admin.one(models.HookToken, project_id=project_id).token
    assert admin.app.test_client().post(f"/hook/{token}", json={"uniqueid": "1", "dst": "101"}).data != b""
    olena = admin.browser("olena")
    alice, sales = admin.one(models.Agent, name="Alice").id, admin.one(models.Group, name="sales").id
    rule, hours = admin.one(models.Rule, name="day").id, admin.one(models.Schedule, name="office hours").id
    own = (f"agents/{alice}", f"agents/{alice}/delete", f"groups/{sales}", f"rules/{rule}", f"schedules/{hours}")
    for path in (*own, "agents", "groups", "rules", "schedules", "hook", "hook/requests", "hook/live"):
        assert olena.get(f"/p/acme/{path}").status_code == 200, path
    assert "101 ← body dst" in olena.get("/p/acme/hook/requests").text
    assert "Calls are arriving" in olena.get("/p/acme/hook/live").text
    assert ">new<" in olena.get("/p/acme/agents").text
    with admin.database.reading() as session:
        found = count_matches(session, project_id, now + timedelta(seconds=1))
    assert sum(found.counts.values()) == 1
    assert sum(sum(trend) for trend in found.trend.values()) == 1

    everything = [row.id for row in admin.all(models.Rule, project_id=project_id)]
    data = {"csrf_token": olena.token, "order": [str(one) for one in reversed(everything)]}
    assert olena.client.post("/p/acme/rules/order", data=data).status_code == 303
    assert "is deleted" in olena.post(f"/p/acme/agents/{alice}/delete", follow=True).text
    version = admin.one(models.Project, name="acme").version
    assert "Undone." in olena.post("/p/acme/undo", version=str(version), follow=True).text
    assert admin.one(models.Agent, name="Alice").id == alice
    assert "Not deleted" in olena.post(f"/p/acme/schedules/{hours}/delete", follow=True).text
    assert "is deleted" in olena.post(f"/p/acme/groups/{sales}/delete", follow=True).text
    version = admin.one(models.Project, name="acme").version
    assert "Undone." in olena.post("/p/acme/undo", version=str(version), follow=True).text
    assert admin.one(models.Group, name="sales").id == sales
    assert "The new address is ready" in olena.post("/p/acme/hook/rotate", grace="1", follow=True).text
