"""The forecast: a pure function of evidence, of what is asked and of the MTA profile.

Nothing here does I/O or reads a clock; time is an argument.
"""
