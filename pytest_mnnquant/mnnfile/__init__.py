"""Reads and writes MNN's files: `.mnn` models and params files. Imports neither MNN nor torch."""
