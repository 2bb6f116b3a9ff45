"""How do files get here from the web, whole, verified and once?"""
