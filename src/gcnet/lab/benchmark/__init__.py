"""How fast the models are here, beside others on the same tensors: `gcnet benchmark`."""
