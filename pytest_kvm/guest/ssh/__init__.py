"""How do we get into the guest by SSH, and files in and out?"""
