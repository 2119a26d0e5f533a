"""router: for every inbound call, the agent who should take it, and why.

    core/      the rules: pure, standard library only
    db/        what we keep: schema, queries, reservations
    routing    the one use case: load, decide, claim, record
    presence/  what we hear of agents' phones: polled, refreshed on demand, pushed
    hook/      what the PBX says and hears
    config_file/  the configuration as a YAML file: checked, applied, exported
    admin/     what people see
    health     how the service does, for machines
    worker     how requests come in, and what happens to a call whose process is killed
    app, cli   the wiring
    config     the environment, read once; log and metrics: what is told and counted

The arrow, kept by tests/test_architecture.py:  core <- db <- routing, presence <- hook, config_file, admin <- app, cli

One call: hook/views authenticates and picks the format -> formats.parse_call makes a Call -> routing.route_call loads
a Snapshot -> core.decide drops the ineligible with a reason each and orders the rest -> routing claims one and records
the Decision in the same transaction -> formats.render_decision answers.
"""

from __future__ import annotations

import zoneinfo

# The locked tzdata decides, not the machine's: schedules must mean the same on every host, and systems' zones go stale.
zoneinfo.reset_tzpath(to=())
