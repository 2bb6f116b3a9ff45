"""Fields that are right alone and wrong together."""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from pytest_kvm.errors import SpecError
from pytest_kvm.spec.boot import read_boot
from pytest_kvm.spec.devices.base import BaseDevice
from pytest_kvm.spec.drive import Drive
from pytest_kvm.spec.firmware import UEFI
from pytest_kvm.spec.forward import Forward, read_hostfwd
from pytest_kvm.spec.nic import Nic
from pytest_kvm.spec.numa import NumaNode, check_nodes
from pytest_kvm.spec.reference import holds_reference
from pytest_kvm.spec.share import Share
from pytest_kvm.spec.wording import Rejected, shown

Rule = Callable[[Mapping[str, object]], SpecError | None]


def check_together(given: Mapping[str, object]) -> None:
    """Raise SpecError for the first contradiction among the given fields.

    Only a rule whose fields are all there is applied; values that a fixture will give are not there yet.
    """
    known = {keyword: value for keyword, value in given.items() if not holds_reference(value)}
    for needed, rule in RULES:
        if all(keyword in known for keyword in needed):
            error = rule(known)
            if error is not None:
                raise error


def _wrong(given: Mapping[str, object], keywords: Iterable[str], reason: str) -> SpecError:
    subject = ", ".join(f"{keyword}={shown(given[keyword])}" for keyword in keywords)
    return SpecError(f"vm({subject}): {reason}")


def _initrd(given: Mapping[str, object]) -> SpecError | None:
    if given["initrd"] is None or given["kernel"] is not None or given["image"] is not None:
        return None
    return _wrong(given, ("image", "initrd"), "an initrd needs a kernel; give kernel= or an image")


def _ready(given: Mapping[str, object]) -> SpecError | None:
    if given["image"] is not None or given["ready"] not in ("shell", "ssh", "agent"):
        return None
    reason = "without an image there is no shell, SSH or agent that we know; use 'login' or a compiled pattern"
    return _wrong(given, ("image", "ready"), reason)


def _seed(given: Mapping[str, object]) -> SpecError | None:
    data = next((keyword for keyword in ("user_data", "meta_data") if given.get(keyword) is not None), None)
    if given["seed"] is False and data is not None:
        return _wrong(given, (data, "seed"), "without a seed nobody can tell the guest; leave out one of them")
    return None


def _seed_without_image(given: Mapping[str, object]) -> SpecError | None:
    given_one = next((keyword for keyword in ("user_data", "meta_data", "seed") if given.get(keyword)), None)
    if given["image"] is not None or given_one is None:
        return None
    return _wrong(given, ("image", given_one), "a seed is for a guest that looks for one; give an image")


def _gdb(given: Mapping[str, object]) -> SpecError | None:
    if given["machine"] != "none" or not given["gdb"]:
        return None
    return _wrong(given, ("machine", "gdb"), "a machine without a CPU has nothing that could be debugged")


def _tpm(given: Mapping[str, object]) -> SpecError | None:
    if given["machine"] != "none" or not given["tpm"]:
        return None
    return _wrong(given, ("machine", "tpm"), "machine 'none' has nothing that could use a TPM")


def _fw_cfg(given: Mapping[str, object]) -> SpecError | None:
    if given["machine"] != "none" or not given["fw_cfg"]:
        return None
    return _wrong(given, ("machine", "fw_cfg"), "machine 'none' has no fw_cfg")


def _kernel(given: Mapping[str, object]) -> SpecError | None:
    if given["machine"] != "none" or given["kernel"] is None:
        return None
    return _wrong(given, ("machine", "kernel"), "machine 'none' has no CPU that could run a kernel")


def _firmware(given: Mapping[str, object]) -> SpecError | None:
    if given["machine"] != "none" or given["firmware"] is None:
        return None
    return _wrong(given, ("machine", "firmware"), "machine 'none' has no CPU that could run firmware")


def _boot_order(given: Mapping[str, object]) -> SpecError | None:
    boot = given["boot"]
    if given["firmware"] not in UEFI or not isinstance(boot, str):
        return None
    parsed = read_boot(boot)
    if parsed.order is None and parsed.once is None:
        return None
    # EDK II, OvmfPkg's QemuBootOrderLib: it reads the list that QEMU makes of bootindex, and nothing else.
    reason = "UEFI does not heed order= and once=; give what shall be booted first bootindex=0"
    return _wrong(given, ("firmware", "boot"), f"{reason}, as in Drive(…, bootindex=0)")


def _network(keyword: str) -> Rule:
    use = {"hostfwd": "forward a port", "internet": "reach the internet"}[keyword]

    def rule(given: Mapping[str, object]) -> SpecError | None:
        nics = given["nics"]
        if not given[keyword] or nics is None or nics:
            return None
        return _wrong(given, ("nics", keyword), f"a machine without a network cannot {use}; leave out one of them")

    return rule


def _network_without_image(keyword: str) -> Rule:
    use = {"hostfwd": "forward a port", "internet": "reach the internet"}[keyword]

    def rule(given: Mapping[str, object]) -> SpecError | None:
        if not given[keyword] or given["nics"] is not None or given["image"] is not None:
            return None
        reason = f"a machine without an image has no network by default and cannot {use}; add nics=[Nic()]"
        return _wrong(given, ("image", keyword), reason)

    return rule


def _twice(items: Iterable[object]) -> object:
    return next((item for item, count in Counter(items).items() if count > 1), None)


def _drives(given: Mapping[str, object]) -> SpecError | None:
    drives = [drive for drive in _items(given["drives"]) if isinstance(drive, Drive)]
    places = [(drive.interface, drive.index) for drive in drives if drive.index is not None]
    for field, found in (
        ("id", _twice(drive.id for drive in drives if drive.id is not None)),
        ("index", _twice(places)),
        ("bootindex", _twice(drive.bootindex for drive in drives if drive.bootindex is not None)),
        ("serial", _twice(drive.serial for drive in drives if drive.serial is not None)),
    ):
        if found is not None:
            place = f"index {found[1]} of interface '{found[0]}'" if isinstance(found, tuple) else f"{field} {found!r}"
            return SpecError(f"vm(drives=…): two drives have {place}", keyword="drives", value=given["drives"])
    return None


def _nics(given: Mapping[str, object]) -> SpecError | None:
    nics = [nic for nic in _items(given["nics"]) if isinstance(nic, Nic)]
    macs = (nic.mac.lower().replace("-", ":") for nic in nics if nic.mac is not None)
    for field, found in (("id", _twice(nic.id for nic in nics if nic.id is not None)), ("mac", _twice(macs))):
        if found is not None:
            return SpecError(f"vm(nics=…): two NICs have {field} {found!r}", keyword="nics", value=given["nics"])
    return None


def _ids(given: Mapping[str, object]) -> SpecError | None:
    kinds = {"drives": "drive", "nics": "NIC", "shares": "share", "devices": "device"}
    declared = [
        (item.id, keyword)
        for keyword in kinds
        for item in _items(given.get(keyword))
        if isinstance(item, (Drive, Nic, Share, BaseDevice)) and item.id is not None
    ]
    found = _twice(each for each, _ in declared)
    keywords = [keyword for each, keyword in declared if each == found]
    if found is None:
        return None
    subject = ", ".join(f"{keyword}=…" for keyword in keywords)
    return SpecError(f"vm({subject}): a {' and a '.join(kinds[keyword] for keyword in keywords)} have id {found!r}")


def _shares(given: Mapping[str, object]) -> SpecError | None:
    shares = [share for share in _items(given["shares"]) if isinstance(share, Share)]
    for field, found in (
        ("guest", _twice(posixpath.normpath(share.guest) for share in shares if isinstance(share.guest, str))),
        ("id", _twice(share.id for share in shares if share.id is not None)),
    ):
        if found is not None:
            return SpecError(
                f"vm(shares=…): two shares have {field} {found!r}", keyword="shares", value=given["shares"]
            )
    return None


def _shares_without_image(given: Mapping[str, object]) -> SpecError | None:
    if given["image"] is not None or not given["shares"]:
        return None
    return _wrong(given, ("image",), "nobody mounts a share where there is no image; leave out shares=")


def _forwards(given: Mapping[str, object]) -> SpecError | None:
    taken: dict[tuple[object, ...], Forward] = {}
    for item in _items(given["hostfwd"]):
        forward = read_hostfwd(item)  # type: ignore[arg-type]  # checked before
        ends: list[tuple[object, ...]] = [(forward.protocol, "guest", forward.guest_address, forward.guest_port)]
        if forward.host_port:
            ends.append((forward.protocol, "host", forward.host_address, forward.host_port))
        for end in ends:
            if end in taken:
                _, side, _, port = end
                reason = f"{forward.protocol} port {port} of the {side} is forwarded twice"
                return SpecError(
                    f"vm(hostfwd={shown(given['hostfwd'])}): {reason}",
                    keyword="hostfwd",
                    value=given["hostfwd"],
                )
            taken[end] = forward
    return None


def _items(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else []


def _numa(given: Mapping[str, object]) -> SpecError | None:
    nodes = [node for node in _items(given["numa"]) if isinstance(node, NumaNode)]
    if not nodes:
        return None
    try:
        check_nodes(nodes, given["smp"], given["memory"])  # type: ignore[arg-type]  # checked before
    except Rejected as reason:
        return SpecError(f"vm(numa=…): {reason}", keyword="numa", value=given["numa"])
    return None


def _numa_machine(given: Mapping[str, object]) -> SpecError | None:
    machine = str(given["machine"]).split(",")[0].removeprefix("type=")
    if machine not in ("microvm", "none") or not given["numa"]:
        return None
    return _wrong(given, ("machine", "numa"), "it has no ACPI tables that would tell a guest of nodes; use q35 or pc")


RULES: tuple[tuple[tuple[str, ...], Rule], ...] = (
    (("image", "kernel", "initrd"), _initrd),
    (("image", "ready"), _ready),
    (("seed",), _seed),
    (("image",), _seed_without_image),
    (("machine", "kernel"), _kernel),
    (("machine", "gdb"), _gdb),
    (("machine", "tpm"), _tpm),
    (("machine", "fw_cfg"), _fw_cfg),
    (("machine", "firmware"), _firmware),
    (("firmware", "boot"), _boot_order),
    (("numa", "smp", "memory"), _numa),
    (("machine", "numa"), _numa_machine),
    (("nics", "hostfwd"), _network("hostfwd")),
    (("nics", "internet"), _network("internet")),
    (("image", "nics", "hostfwd"), _network_without_image("hostfwd")),
    (("image", "nics", "internet"), _network_without_image("internet")),
    (("drives",), _drives),
    (("nics",), _nics),
    (("shares",), _shares),
    ((), _ids),
    (("image", "shares"), _shares_without_image),
    (("hostfwd",), _forwards),
)
