"""The order of a run: open a network, decide, cut, recover, deliver."""
