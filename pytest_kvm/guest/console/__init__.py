"""What is on the serial console, and how is one logged in and at work there?"""
