"""What people see: each a renderer of one Snapshot."""
