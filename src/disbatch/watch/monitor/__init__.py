"""`dbutil monitor`: a run on a whole terminal, with keys that ask its driver to do something.

app           the application: follows the run, and what each key does
  screens     help, details, and questions that want a yes
  table       rows that can be sorted, filtered, searched; redraws only lines that changed
  head        the run in a few lines, and its throughput as a curve
    rows      what the tables hold
"""
