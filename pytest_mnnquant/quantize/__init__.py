"""Recipes: a float model and calibration data become a variant."""
