"""`python -m simulator`: the same as `router demo-pbx`."""

from __future__ import annotations

import sys

from simulator.pbx import main

sys.exit(main())
