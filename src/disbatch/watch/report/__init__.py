"""Reports on finished or running runs: read status files, analyse them, and show the result as text, JSON or
HTML.

    files -> data -> slots -> statistics -> figures -> text, JSON, page

The standard library is enough: a million lines take a few seconds, and nothing needs to be installed on a
login node.
"""
