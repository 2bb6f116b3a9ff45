"""Where do kernels come from that are not the image's own, and which modules belong to them?"""
