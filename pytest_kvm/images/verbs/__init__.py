"""What does qemu-img do for tests? Each of its verbs as a function, exported by ``pytest_kvm.images``.

The same holds for all of them. Paths are paths of files, whatever characters are in them, and start at the working
directory when they are relative. Sizes are in bytes, or QEMU's text such as ``"64M"``. ``format`` is that of the
file; where it is not said, the file's first bytes tell qcow2 from raw, and anything else has to be declared, also a
qcow2 image that consists of files outside its folder: a guest could have written its header into a raw disk.
``progress`` is called with a fraction from 0 to 1 now and then; True draws a bar on standard error if that is a
terminal. ``force_share`` reads a qcow2 image that a running machine has open, as it is at that moment (``-U``); a raw
one can be read at any time. ``qemu`` names a QEMU other than the usual one, by its path or its name on PATH: the
qemu-img beside it is used, otherwise the one on PATH.

They raise SpecError when an argument cannot be, before anything is run; HostError when there is no qemu-img;
QemuImgError when qemu-img does not do it, with its ``returncode``, ``stderr`` and ``command``. Then files that are
read are as they were, and nothing is left of one that was being made. The verbs are those of qemu-img(1).
"""
