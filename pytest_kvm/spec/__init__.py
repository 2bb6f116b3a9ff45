"""What does the test ask for?"""
