"""Benchmarks with ratios: what a routed call costs beside what it could cost at best. The method is in README.md.

__main__   python -m bench: the plan of runs, in interleaved rounds
against    python -m bench --against COMMIT: the service here and there, called in turn
servers    a real PostgreSQL, and the CPU that processes use
projects   the configurations that the hook is measured on
log        a long log from a short one
pages      python -m bench.pages: how long the admin pages take
apps       what the hook is measured against: bare views, and the script that one would write in an hour
status_api a status API that takes 80 ms, for that script
load       wrk (calls.lua), and calls that come when they are due; every answer is checked
report     figures to a table, results.json and README.md
"""

from __future__ import annotations
