"""`python -m disbatch`: `disbatch`, where the interpreter's path is one that no script can begin with."""

from __future__ import annotations

import sys

from disbatch.cli.begin import disbatch

sys.exit(disbatch())
