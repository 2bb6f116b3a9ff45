"""How do folders of the host get into a machine?"""
