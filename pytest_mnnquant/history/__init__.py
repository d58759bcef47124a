"""What a model's figures were: the committed baseline, and all runs over time."""
