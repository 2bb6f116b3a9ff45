"""What is a running VM?"""
