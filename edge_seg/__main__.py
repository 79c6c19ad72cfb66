"""`python -m edge_seg`: the same as `edge-seg`."""

from edge_seg.cli import entry

if __name__ == "__main__":
    entry()
