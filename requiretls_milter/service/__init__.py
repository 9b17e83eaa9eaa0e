"""The supervisor: it starts, watches, reloads and stops the engine and the workers."""
