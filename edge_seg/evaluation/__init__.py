"""Mask quality over time against ground truth, for us and for the public smoothers. Never used by the daemon."""
