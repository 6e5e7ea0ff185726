"""Made by `make generate`."""
