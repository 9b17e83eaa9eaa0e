"""What outlives the process: memory, SQLite, or Redis and Valkey for a fleet."""
