"""What admins configure: one description of it, and one writer.

    schema     each key with its default, its help, its limits, what it refers to: the only list of fields
    document   converts between documents (by id) and the models of the schema (by name)
    check      checks across keys; normalises numbers and times
    rows       maps documents to the rows of the database and back
    change     the only writer: edits a draft, checks, builds, compares, writes and publishes it
    rule_tests    runs the rules' own tests
    undo       takes a published change back
    versions   lists published versions and restores one
    reading, applying, exporting    the configuration file

Decides nothing about calls. Forms, the file, undo, imports and the board write through `change`.
"""

from __future__ import annotations

from router.configuration.applying import Change, apply
from router.configuration.exporting import export
from router.configuration.reading import ConfigFile, ConfigFileError, Problem, check, load

__all__ = ["Change", "ConfigFile", "ConfigFileError", "Problem", "apply", "check", "export", "load"]
