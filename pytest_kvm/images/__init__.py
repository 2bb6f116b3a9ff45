"""Where do disks and kernels come from?"""
