"""MNN's command line tools made safe: their arguments are checked, they run isolated, and what they wrote is judged."""
