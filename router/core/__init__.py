"""The rules: pure functions over frozen values. Standard library only; time, chance and data come in as arguments."""
