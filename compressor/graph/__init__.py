"""Analyse a network: a program and rules become axes, groups, protections and costs.

Nothing is imported here: rules and the algebra do without torch.
"""
