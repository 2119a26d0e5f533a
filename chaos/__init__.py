"""Faults on purpose, with calls going on: real gunicorn processes, real PostgreSQL, real sockets. `make chaos`.

caller     asks the hook at a steady rate and judges each answer
clients    other clients, who hold a server up by intent or not
postgres   a real PostgreSQL server, with what can be done to it
stage      the service, its database and the demo PBX, with what can be done to them
scenarios  SCENARIOS: name → what goes wrong
report     the table in docs/reliability.md
"""
