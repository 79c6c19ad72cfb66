"""The commands of `edge-seg`, one file each: its arguments, and a handler that returns the exit status."""

import argparse
from typing import TypeAlias

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
