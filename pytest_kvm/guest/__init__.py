"""How do we talk to what runs inside, and what does it say?"""
