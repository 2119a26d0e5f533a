"""Explains decisions and states: as values with codes and parameters, for pages, the command line and JSON."""
