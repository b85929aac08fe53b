"""A model for elsewhere: graphs (MindIR), state_dicts (PyTorch's names)."""
