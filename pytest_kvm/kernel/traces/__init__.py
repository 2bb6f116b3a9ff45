"""Where in its sources is a kernel, when it says that it is at ``function+0x12/0x40``?"""
