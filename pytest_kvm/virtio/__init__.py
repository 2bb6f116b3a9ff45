"""What does the virtio specification say? Numbers and names of version 1.3, without any machine."""
