"""What we hear of agents' phones. Writes what was observed; decides nothing and knows nothing of calls to route."""

from __future__ import annotations
