"""Get from a subject to a plan: what is known of network and machine, and which channels go."""
