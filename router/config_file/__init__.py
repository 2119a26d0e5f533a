"""Configuration as code: the YAML file of docs/configuration-file.md, checked, applied and exported.

    words      each key: default, help, what it takes
    settle     what goes beyond one key; the one spelling of numbers and times
    document   words and published documents
    reading    text to settled words, or all problems with line and remedy
    applying   words to rows, in one transaction
    exporting  rows to text

Decides nothing about calls. The forms of the admin use the same words.
"""

from __future__ import annotations

from router.config_file.applying import Change, apply
from router.config_file.exporting import export
from router.config_file.reading import ConfigFile, ConfigFileError, Problem, check, load

__all__ = ["Change", "ConfigFile", "ConfigFileError", "Problem", "apply", "check", "export", "load"]
