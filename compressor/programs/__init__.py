"""How programs are read: nodes, stored tensors, what comes before data decide."""
