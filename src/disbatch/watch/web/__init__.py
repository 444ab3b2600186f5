"""The web page of a run, served by a process of its own that watches the run like any other client.

Theory of operation
-------------------
`-w` makes the driver start this process and hand it a listening socket and the first token (`launch`). The
process asks the driver for the state of the run, keeps one picture of it (`state`), and sends each browser
what has changed since that browser was last told (`server`). So the driver pays for one watcher, however many
look; no browser can block it; and the page continues when another driver takes the run over. `security`
decides what a browser may do before anything else sees its request.
"""
