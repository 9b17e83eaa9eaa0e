"""Strings of strangers and of Postfix made values: names, next hops, policies, status codes."""
