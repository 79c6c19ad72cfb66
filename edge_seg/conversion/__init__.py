"""Recordings through the same stages as live video, without a clock: every frame waits for its own mask.

recording.py reads, converter.py takes each frame through the stages, writer.py encodes and keeps the sound.
"""
