"""What remains of a failure?"""
