"""The targets; each function's docstring says how it reads its input."""
