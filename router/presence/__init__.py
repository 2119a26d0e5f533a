"""Observe agents' phones and store what was observed. Decides nothing and knows nothing of calls to route."""

from __future__ import annotations
