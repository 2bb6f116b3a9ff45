"""How do commands run over our own virtio-serial ports?"""
