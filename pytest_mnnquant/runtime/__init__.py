"""Calls MNN's native code, always in a child process."""
