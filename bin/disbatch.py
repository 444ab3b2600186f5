#!python
# Import from where disbatch is installed: what PYTHONPATH names is for the tasks, unless disbatch is there.
# This is no entry point, because what installers write for one may import modules of PYTHONPATH first; and it
# needs no other file beside it, because sbatch runs a copy elsewhere.
import os
import sys

theirs = os.environ.get("PYTHONPATH", "").split(os.pathsep)
try:
    theirs = [os.path.abspath(entry) for entry in theirs]
except OSError:
    pass  # the working directory is gone; what comes next says so
sys.path.sort(key=lambda entry: entry in theirs and not os.path.exists(f"{entry}/disbatch/cli/entry.py"))

from disbatch.cli.entry import disbatch

sys.exit(disbatch())
