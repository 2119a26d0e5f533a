"""`python -m router.demo`: the same as `router demo-pbx`."""

from __future__ import annotations

import sys

from router.demo.pbx import main

sys.exit(main())
