"""`python -m disbatch` runs `disbatch`, also where a blank in a path keeps scripts from starting."""

from __future__ import annotations

import sys

from disbatch.cli.entry import disbatch

sys.exit(disbatch())
