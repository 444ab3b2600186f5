"""`python -m disbatch` runs `disbatch`."""

from __future__ import annotations

import sys

from disbatch.cli.begin import disbatch

sys.exit(disbatch())
