"""Everything that calls MNN's native code, always in a child process."""
