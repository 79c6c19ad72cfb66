"""Metrics, health and a page to look at, on one port."""
