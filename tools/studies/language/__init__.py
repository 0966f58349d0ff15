"""A language model as a transformers folder: made of plain weights, cut, judged, and run.

`folder.py` writes `stories260k` as `save_pretrained` would. `network.py` has what the studies ask
of it; `flap.py` is a rival that chooses and mends by means alone; `generation.py` is the clock.
"""
