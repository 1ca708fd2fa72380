"""Rolling restarts: a process is replaced by a new one while the stack is used."""
