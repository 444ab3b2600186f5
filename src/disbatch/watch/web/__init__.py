"""The web page of a run: a process of its own, which watches the run as everybody does.

Theory of operation
-------------------
`-w` makes the driver start this process and hand it a listening socket and the first token (`start`). It
asks the driver how the run stands over the control channel (`watcher`), keeps one picture of it (`state`),
and sends each browser what has changed since it heard last (`app`). So the driver pays for one watcher,
whoever looks; nothing that a browser does can hold it up; and the page goes on when another driver takes the
run over. What a browser may do is decided in `guard`, before anything else sees its request.
"""
