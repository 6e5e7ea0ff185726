"""Measures, and says against what: `make bench`. Each figure comes from real processes started for it.

`figures` has the budget, `case` the shape that every module of `cases` has, `stack` the processes that are measured.
"""
