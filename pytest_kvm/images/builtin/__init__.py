"""How is the built-in guest made of a distribution's packages?"""
