"""Mask quality over time, against ground truth: ours and the public smoothers'. The daemon never uses it."""
