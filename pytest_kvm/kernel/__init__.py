"""What do kernel people ask?"""
