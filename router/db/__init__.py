"""What we keep: the schema, the sessions, the questions asked of the database, and the one contended write."""
