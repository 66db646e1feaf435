"""Online rounds: collect pairs with the policy, train on them, and again. `run` has the layout of the folders."""
