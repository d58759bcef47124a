"""Every silent failure of the catalogue that can be built here, each with its nearest healthy twin.

A builder plants a fault with the real tools and returns what was planted and the twin; see `plan.fault`.
"""
