"""Tells people and programs what was found: reads findings and metrics only."""
