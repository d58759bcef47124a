"""Checks judge evidence that is handed to them: pure functions that run nothing."""
