"""Metrics that compare two models; only numpy is needed."""
