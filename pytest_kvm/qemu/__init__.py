"""How is QEMU spoken to?"""
