"""Read traced programs: nodes, stored tensors, and the part that comes before data decide."""
