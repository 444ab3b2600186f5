"""What status files tell about a run: read, reckon, and show as text, JSON or a page.

    files -> lines -> counts -> rooms -> summing up -> Report -> text, JSON, page

The standard library is enough for it: a million lines take a few seconds, and what a login node has
installed is all that is needed.
"""
