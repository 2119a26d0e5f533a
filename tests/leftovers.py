"""What tests must not leave behind on the machine."""

from __future__ import annotations


def forget_host_memory(url: str) -> None:
    """What processes of this host told each other of this database: a megabyte of memory, kept until the host ends."""
    from router.db.session import Database
    from router.host_memory import host_memory_path

    database = Database(url)
    path = host_memory_path(str(database.engine.url))
    database.dispose()
    for each in path.parent.glob(f"{path.stem}.*"):
        each.unlink(missing_ok=True)
