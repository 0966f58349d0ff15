"""Repair and train as the options say, and keep what a run has reached."""
