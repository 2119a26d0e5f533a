"""What the PBX says and hears: requests read, answers and admission rendered. No routing rules, no presence."""

from __future__ import annotations
