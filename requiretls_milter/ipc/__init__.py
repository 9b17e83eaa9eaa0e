"""What the processes say to each other: the supervisor's channel and the engine's socket."""
