"""Two programs for the built-in guest that no package has, each a few dozen bytes of x86-64 machine code.

They are written out because a clone's first milliseconds count: emulated code is slow the first time it runs, and a
shell that executes busybox to execute a shell runs a lot of it. System call numbers are those of the kernel's
arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

import struct

_LOAD_ADDRESS = 0x400000

# session PROGRAM ARGV0 [ARGUMENT...]: run a program in a session, and so a process group, of its own. A shell lets
# what it starts in the background ignore SIGINT and SIGQUIT; here they are what they are everywhere else.
_SESSION = b"".join(
    (
        b"\x49\x89\xe4",  # mov r12, rsp: argc, behind it argv
        b"\x31\xc0\x50\x50\x50\x50",  # a struct sigaction of zeros: SIG_DFL
        b"\x48\x89\xe6\x31\xd2",  # rsi: it; rdx: the old one is not asked for
        b"\x41\xba\x08\x00\x00\x00",  # mov r10d, 8: sizeof(sigset_t)
        b"\xbf\x02\x00\x00\x00",  # mov edi, SIGINT
        b"\xb8\x0d\x00\x00\x00\x0f\x05",  # rt_sigaction()
        b"\xbf\x03\x00\x00\x00",  # mov edi, SIGQUIT
        b"\xb8\x0d\x00\x00\x00\x0f\x05",  # rt_sigaction()
        b"\xb8\x70\x00\x00\x00\x0f\x05",  # setsid()
        b"\x49\x8b\x0c\x24",  # mov rcx, [r12]: argc
        b"\x49\x8b\x7c\x24\x10",  # mov rdi, [r12 + 16]: argv[1], the path
        b"\x49\x8d\x74\x24\x18",  # lea rsi, [r12 + 24]: argv + 2, the program's own
        b"\x49\x8d\x54\xcc\x10",  # lea rdx, [r12 + 8 * rcx + 16]: the environment, behind argv's end
        b"\xb8\x3b\x00\x00\x00\x0f\x05",  # execve()
        b"\xbf\x7f\x00\x00\x00",  # mov edi, 127: there is no such program
        b"\xb8\x3c\x00\x00\x00\x0f\x05",  # exit()
    )
)

# resume, with the port of that name as stdin and stdout: for each request set the clock, feed and reseed the random
# number generator, and answer. A request is struct timespec and struct rand_pool_info with ENTROPY_BYTES bytes, the
# answer its first 8 bytes. What the kernel refuses is left: whoever asked looks at the clock.
ENTROPY_BYTES = 64
_REQUEST = struct.calcsize("=qqii") + ENTROPY_BYTES
_RESUME = b"".join(
    (
        b"\xb8\x02\x00\x00\x00",  # open(
        b"\x48\x8d\x3d\x69\x00\x00\x00",  # lea rdi, [the name below]
        b"\x31\xf6\x0f\x05",  # O_RDONLY)
        b"\x89\xc3",  # mov ebx, eax: the random device
        b"\x48\x83\xec\x60",  # sub rsp, 96: the buffer
        # again:
        b"\x31\xc0\x31\xff",  # read(0,
        b"\x48\x89\xe6",  # the buffer,
        b"\xba" + struct.pack("<I", _REQUEST) + b"\x0f\x05",  # its size)
        b"\x83\xf8" + bytes([_REQUEST]),  # cmp eax, its size
        b"\x75\x40",  # jne out
        b"\xb8\xe3\x00\x00\x00",  # clock_settime(
        b"\x31\xff",  # CLOCK_REALTIME,
        b"\x48\x89\xe6\x0f\x05",  # the buffer)
        b"\xb8\x10\x00\x00\x00",  # ioctl(
        b"\x89\xdf",  # the random device,
        b"\xbe\x03\x52\x08\x40",  # RNDADDENTROPY,
        b"\x48\x8d\x54\x24\x10\x0f\x05",  # the buffer + 16)
        b"\xb8\x10\x00\x00\x00",  # ioctl(
        b"\x89\xdf",  # the random device,
        b"\xbe\x07\x52\x00\x00\x0f\x05",  # RNDRESEEDCRNG)
        b"\xb8\x01\x00\x00\x00",  # write(
        b"\x89\xc7",  # 1,
        b"\x48\x89\xe6",  # the buffer,
        b"\xba\x08\x00\x00\x00\x0f\x05",  # 8)
        b"\xeb\xad",  # jmp again
        b"\xb8\x3c\x00\x00\x00",  # out: exit(
        b"\xbf\x01\x00\x00\x00\x0f\x05",  # 1)
        b"/dev/urandom\0",
    )
)


RESUME = "lib/kvm/resume"


def programs() -> dict[str, bytes]:
    """Return the programs, by their path in the guest."""
    return {"lib/kvm/session": _elf(_SESSION), RESUME: _elf(_RESUME)}


def _elf(code: bytes) -> bytes:
    """Return a static executable of one segment (elf(5)) that begins to run at the code's first byte."""
    headers = struct.calcsize("<16sHHIQQQIHHHHHH") + struct.calcsize("<IIQQQQQQ")
    size = headers + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01",  # 64 bits, little-endian, version 1
        2,  # ET_EXEC
        62,  # EM_X86_64
        1,
        _LOAD_ADDRESS + headers,
        64,  # where the program header is
        0,
        0,
        64,
        56,
        1,
        64,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x1000)  # read and execute
    return header + segment + code
