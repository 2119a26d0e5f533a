"""Cause faults while calls go on: real gunicorn processes, real PostgreSQL, real sockets. `make chaos`.

caller     asks the hook at a steady rate and checks each answer
clients    other clients, which load the server on purpose or not
postgres   a real PostgreSQL server that can be stopped, frozen and limited
stage      the service, its database and the demo PBX, with functions that cause faults
scenarios  SCENARIOS: name → fault
__main__   runs them, and writes the table in docs/reliability.md
"""
