"""Fuzzing, guided by coverage: every parser that reads bytes from outside (atheris, libFuzzer).

    python -m tests.fuzz [TARGET...] [--seconds N]

A target is a function that takes bytes, hands them to a parser of the product
and asserts what must hold whatever they are: no exception but the documented
one, output that is bounded and printable, what is read and written again reads
the same. ``corpus/TARGET`` holds its seeds; ``tests/project`` replays them in
every test run, where atheris is not installed too; ``tests/service`` fuzzes for 30 s in all.

What a run finds is kept in ``.fuzz`` at the root of the repository: the inputs
that reached new code, and a file for each crash. A crash becomes a seed (so
that it is replayed for ever) and a unit test of what it showed.
"""
