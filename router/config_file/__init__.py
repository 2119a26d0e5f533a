"""Configuration as code: check, apply and export the YAML file of docs/configuration-file.md.

    schema     each key with its default, help and what it takes
    normalise  checks across keys; normalises numbers and times
    document   converts between the models of the schema and published documents
    rows       writes documents into the database
    reading    reads text into a normalised configuration, or reports all problems with line and remedy
    applying   applies a configuration to the database, in one transaction
    exporting  renders what is stored as text

Decides nothing about calls. The forms of the admin use the same schema.
"""

from __future__ import annotations

from router.config_file.applying import Change, apply
from router.config_file.exporting import export
from router.config_file.reading import ConfigFile, ConfigFileError, Problem, check, load

__all__ = ["Change", "ConfigFile", "ConfigFileError", "Problem", "apply", "check", "export", "load"]
