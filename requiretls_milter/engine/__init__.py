"""The engine: the one process that touches the network, and the worker's way to it."""
