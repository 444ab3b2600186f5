"""On a node: slots, processes, captured output, ending."""
