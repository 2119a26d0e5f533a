"""Simulate a cloud PBX like Ringostat over real HTTP, and run the service's own processes, for tests and trials.

The built package does not contain it: the command line looks for it, for `make run` and `router demo-pbx`. The PBX
shares no code with the service; only `service` imports router. The platform's behaviour is taken from its public help
articles; where they leave it open, there is a setting.

    cast        the staff and the numbers  settings    all settings, checked
    plan        what callers do (seeded)   lines       the true states: idle, rings, talks, offline
    clock       timers, at any speed       wire        one HTTP request with one deadline
    forms       requests and answers       exchange    calls: they arrive, ask the hook, ring, talk, end
    faults      faults of the status API   server      the status API and the control endpoint
    ledger      records, and their check   pbx         the whole PBX, and the command

    processes   gunicorn as the Procfile starts it, or another program that listens
    service     the service on a database: configured, started, called
    postgres    a real PostgreSQL server
"""

from __future__ import annotations
