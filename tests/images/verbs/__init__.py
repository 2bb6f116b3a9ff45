"""The verbs of qemu-img, as functions."""
