"""Faults on purpose, with calls going on: real gunicorn processes, real PostgreSQL, real sockets. `make chaos`.

caller     asks the hook at a steady rate and judges each answer
stage      the service, its database and the demo PBX, with what can be done to them
scenarios  SCENARIOS: name → what goes wrong
report     the table in docs/reliability.md
"""
