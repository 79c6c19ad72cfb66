"""Person segmentation in live video on small boards."""

__version__ = "0.1.0"
