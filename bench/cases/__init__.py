"""The cases, one module for each group of figures; `bench.case` says what each has."""
