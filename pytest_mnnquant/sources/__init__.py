"""Where a model and its data come from."""
