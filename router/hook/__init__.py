"""Read requests of the PBX, check who sends them, render the answers. No routing rules, no presence."""
