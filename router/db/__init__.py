"""The database: the schema, sessions, queries, and the reservation of agents, the only contended write."""
