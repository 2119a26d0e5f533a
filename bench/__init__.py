"""Benchmarks with ratios: the cost of a routed call, compared with the least that it could cost. See README.md.

__main__   python -m bench: the plan of runs, in interleaved rounds
against    python -m bench --against COMMIT: this commit and another one, called in turn
servers    a real PostgreSQL, and the CPU that processes use
projects   the configurations that the hook is measured on
log        makes a long log from a short one
pages      python -m bench.pages: how long the admin pages take
apps       the apps that the hook is compared with: bare views, and a script written in an hour
status_api a status API that takes 80 ms, for that script
load       calls by wrk (calls.lua), and calls at given times; every answer is checked
report     writes the figures into a table, results.json and README.md
"""

from __future__ import annotations
