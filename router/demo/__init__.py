"""The bundled demo PBX: a simulated Ringostat-like cloud PBX over real HTTP, for `make run` and for the tests.

It shares no code with what it tests: nothing here imports the rest of `router`, and nothing but the command line
imports this. How the platform behaves is taken from its public help
articles; what they leave open is a setting.

    cast        who works here            settings    every knob, checked
    plan        what callers do (seeded)  lines       who is idle, rings, talks, is offline: the truth
    clock       timers, at any speed      wire        one HTTP request, with one deadline for all of it
    forms       how we ask, what we read  exchange    calls arrive, ask the hook, ring, are talked, end
    faults      how the status API fails  server      the status API and the control endpoint
    ledger      what happened, judged     pbx         all of it together, and the command
"""

from __future__ import annotations
