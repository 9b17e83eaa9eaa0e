"""Endurance: many messages through the real service, and nothing of it grows."""
