"""`python -m router` is the `router` command, for places where the package is not installed."""

from __future__ import annotations

from router.cli import main

main()
