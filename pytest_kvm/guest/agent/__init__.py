"""How is the QEMU guest agent spoken to?"""
