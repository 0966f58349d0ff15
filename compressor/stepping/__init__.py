"""Get from a plan to a repaired network: at once, in steps, or by trying until a budget is met."""
