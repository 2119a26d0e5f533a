"""router: for every inbound call, the agent who should take it, and why.

    core/      the rules: pure, standard library only
    db/        the schema, queries, reservations
    routing/   one call: load, decide, claim, record; outage and outbox, for when the database is away
    presence/  the state of agents' phones: polled, refreshed on demand, pushed by events
    hook/      requests of the PBX and the answers to them
    configuration/  the configuration as a YAML file: checked, applied, exported
    admin/     the web pages
    check, health  what the installation needs, and whether it has it
    server     limits for requests, in gunicorn's parser
    app, cli, background  the wiring
    config     the environment, read once; log, metrics

The imports, checked by tests/test_architecture.py:  core <- db <- routing, presence <- hook, configuration,
admin <- app, cli

One call: hook/views authenticates and picks the format -> formats.parse_call makes a Call -> routing.route_call loads
a Snapshot -> core.decide drops ineligible agents with a reason each and orders the others -> routing claims one and
records the Decision in the same transaction -> formats.render_decision answers.
"""

from __future__ import annotations

import zoneinfo

# The locked tzdata decides, not the machine's: schedules must mean the same on every host, and systems' zones go stale.
zoneinfo.reset_tzpath(to=())
