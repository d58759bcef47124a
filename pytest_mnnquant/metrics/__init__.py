"""Figures that compare two models: numpy only."""
