"""Where engines come from: environment to nodes and slots, nodes to launches."""
