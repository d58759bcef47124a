"""The command line: MNN's tools with checked arguments, isolated processes and verified output, and other commands."""
