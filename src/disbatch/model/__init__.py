"""What a task, a result and a status line are; nothing here does I/O."""
