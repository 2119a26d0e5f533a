"""What the service is tried with: a simulated Ringostat-like cloud PBX over real HTTP, and the service's own processes.

It is no part of the package that is built: the command line looks for it, for `make run` and `router demo-pbx`. The PBX
shares no code with what it tests; only `service` imports router. How the platform behaves is taken from its public help
articles; what they leave open is a setting.

    cast        who works here            settings    every knob, checked
    plan        what callers do (seeded)  lines       who is idle, rings, talks, is offline: the truth
    clock       timers, at any speed      wire        one HTTP request, with one deadline for all of it
    forms       how we ask, what we read  exchange    calls arrive, ask the hook, ring, are talked, end
    faults      how the status API fails  server      the status API and the control endpoint
    ledger      what happened, judged     pbx         all of it together, and the command

    processes   gunicorn as the Procfile starts it, or another program that listens
    service     the service on a database: configured, started, asked
    postgres    a real PostgreSQL server
"""

from __future__ import annotations
