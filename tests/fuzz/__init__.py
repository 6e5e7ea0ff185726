"""Generated requests against a running server: `python -m tests.fuzz`, in short in the test suite."""
