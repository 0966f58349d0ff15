"""From a plan to a repaired network: at once, in steps, or tried until a budget is met."""
