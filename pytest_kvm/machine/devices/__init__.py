"""The devices of a machine: which there are, what the guest makes of them, and how they come and go."""
