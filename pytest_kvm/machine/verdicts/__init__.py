"""What goes wrong in a machine while nobody looks: noticed, kept, and judged when a test ends."""
