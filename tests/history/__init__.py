"""Tests of the baseline and of history."""
