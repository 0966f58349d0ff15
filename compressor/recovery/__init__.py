"""Repair and training as the options say, and what a run has reached."""
