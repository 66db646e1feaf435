"""How fast stepdpo is, beside its peers, on the same token ids and the same random weights: `make bench`."""
