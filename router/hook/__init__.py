"""Reads requests of the PBX, renders answers, decides who is let in. No routing rules, no presence."""
