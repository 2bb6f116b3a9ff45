"""``pytest-kvm boot``: machines by hand, in processes of their own."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pexpect
import pytest

from pytest_kvm.cli.fields import FIELDS
from pytest_kvm.spec.fields import CHECKS
from tests.sessions import PATIENCE, gone, processes, temporary

__all__ = ["temporary"]  # a fixture

BOOT = [sys.executable, "-m", "pytest_kvm", "boot"]
TIMEOUT = 120  # the host may be busy


@pytest.fixture(scope="module", autouse=True)
def _not_the_first() -> None:
    boot("--run", "true")  # the first one on a host tells what it makes, and which accelerator there is


@pytest.fixture(autouse=True)
def nothing_is_left(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Which shows whose processes they are, too; this one's has not changed.
    monkeypatch.setenv("TMPDIR", str(temporary))
    yield
    assert list(temporary.iterdir()) == []
    assert processes(f"TMPDIR={temporary}") == []


def boot(*arguments: str | Path, data: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BOOT, *arguments], input=data, capture_output=True, text=True, check=False, timeout=TIMEOUT, cwd=cwd
    )


def test_a_command() -> None:
    result = boot("tiny", "--run", "uname -r")
    assert (result.returncode, result.stderr) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*\n", result.stdout)


def test_its_status_and_both_outputs() -> None:
    result = boot("--run", "echo out; echo wrong >&2; exit 42")
    assert (result.returncode, result.stdout, result.stderr) == (42, "out\n", "wrong\n")


def test_its_input() -> None:
    assert boot("--run", "cat; echo end", data="not asked for").stdout == "end\n"
    assert boot("--run", "cat; echo end", "--stdin", data="given\n").stdout == "given\nend\n"


def test_output_comes_when_it_is_written() -> None:
    with subprocess.Popen(
        [*BOOT, "--run", "echo first; cat >/dev/null; echo second", "--stdin"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        assert process.stdout.readline() == "first\n"
        assert process.stdout.readline() == "second\n"
    assert process.returncode == 0


def test_fields(tmp_path: Path) -> None:
    (tmp_path / "given.raw").write_bytes(b"given".ljust(1 << 20, b"\0"))
    result = boot(
        *("--smp", "2", "--memory", "192M", "--append", "test.word=here"),
        *("--drive", "given.raw,format=raw,serial=a", "--drive", "size=4M,serial=b", "--nic", "e1000"),
        *("--extra", "rng", "--device", "virtio-balloon-pci,id=mine", "--start", "boot"),
        *("--numa", "128M,cpus=0,distances=10:30", "--numa", "64M,cpus=1,distances=40:10"),
        "--run",
        "nproc; grep -o test.word=here /proc/cmdline; head -c 5 /dev/vda; cat /sys/block/vd?/serial; "
        "echo; cat /sys/class/net/eth0/device/vendor; cat /sys/devices/system/node/node?/distance; exit 7",
        cwd=tmp_path,
    )
    assert (result.returncode, result.stderr) == (7, "")
    assert result.stdout.replace("\n", " ").split() == [
        "2",
        "test.word=here",
        "givenab",
        "0x8086",
        "10",
        "30",
        "40",
        "10",
    ]


def test_a_kernel_that_panics() -> None:
    result = boot("--run", "echo before; echo c >/proc/sysrq-trigger; sleep 600")
    assert (result.returncode, result.stdout) == (1, "before\n")
    assert "pytest-kvm: VM 'vm': the guest's kernel panicked: sysrq triggered crash" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_splat_is_told() -> None:
    report = "WARNING: CPU: 0 PID: 1 at kernel/foo.c:1 foo+0x1/0x2"
    result = boot("--run", f"echo '{report}' >/dev/kmsg; usleep 500000")
    assert result.returncode == 0
    assert result.stderr == "pytest-kvm: VM 'vm': WARNING in foo\n"


def test_a_command_that_takes_too_long() -> None:
    result = boot("--run", "sleep 600", "--run-timeout", "0.2")
    assert result.returncode == 1
    assert result.stderr == "pytest-kvm: command is still running after 0.2 s: 'sleep 600'\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--memory", "banana"], "vm(memory='banana'): expected a number of MiB"),
        (["--drive", "size=4M,interface=idx"], "Drive(interface='idx'): unknown value 'idx'; did you mean 'ide'?"),
        (["--drive", "size=4M,snapshot=maybe"], "--drive size=4M,snapshot=maybe: snapshot: expected on or off, not"),
        (["--drive", "size=4M,index=one"], "index: expected a number, not 'one'"),
        (["--drive", "a.raw,loose"], "--drive a.raw,loose: expected loose=VALUE, as QEMU has it"),
        (["--drive", "a.raw"], "there is no such file"),
        (["--numa", "128M,distances=ten"], "--numa 128M,distances=ten: expected distances such as 10:20"),
        (["--numa", "128M,cpu=0"], "NumaNode(cpu=…): unknown keyword 'cpu'; did you mean 'cpus'?"),
        (["--share", "."], "--share .: say where it is in the guest: .,guest=/mnt"),
        (["--share", "nowhere,guest=/mnt"], "/nowhere'): there is no such folder"),
        (["--timeout", "soon"], "--timeout=soon: expected a number of seconds"),
        (["--meta-data", "{"], "--meta-data={: it is no JSON: "),
        (["--smbios", "["], "--smbios=[: it is no JSON: "),
        (["--ready", "pattern:("], "--ready=pattern:(: it is no regular expression: "),
        (["nosuchimage"], "image 'nosuchimage' is neither a file nor a known name"),
        (["--qemu", "/no/such/qemu"], "--kvm-qemu=/no/such/qemu: no such executable"),
        (["--accel", "hvf"], "accel='hvf' was asked for, which is not of this system: 'kvm' is"),
    ],
)
def test_what_cannot_be(arguments: list[str], said: str, tmp_path: Path) -> None:
    result = boot(*arguments, "--run", "true", cwd=tmp_path)
    assert result.returncode == 125  # as git bisect has it
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert boot(*arguments, cwd=tmp_path).returncode == 1


def test_the_command_line(tmp_path: Path) -> None:
    given = tmp_path / "with, comma.raw"
    given.write_bytes(bytes(1 << 20))
    result = boot(
        *("--print-command", "--drive", f"{str(given).replace(',', ',,')},format=raw", "--drive", "size=4M"),
        *("--hostfwd", "80", "--arg=-rtc", "--arg=base=utc", "--nic", "e1000,mac=52:54:00:00:00:01"),
    )
    assert (result.returncode, result.stderr) == (0, "")
    words = shlex.split(result.stdout.replace("\\\n", ""))
    assert words[-2:] == ["-rtc", "base=utc"]
    assert "e1000,id=net0,netdev=net0,mac=52:54:00:00:00:01,romfile=" in words
    assert any("with,, comma.raw" in word for word in words)
    # QEMU takes it; the guest needs not boot for that.
    started = subprocess.run(
        [*words, "-S"], input="\x01x", capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert (started.returncode, started.stderr) == (0, "")


def test_without_an_image() -> None:
    words = shlex.split(boot("none", "--machine", "none", "--print-command").stdout.replace("\\\n", ""))
    assert words[words.index("-machine") + 1].startswith("none")


class Terminal:
    """The command at a terminal."""

    def __init__(self, *arguments: str) -> None:
        self.spawn = pexpect.spawn(
            BOOT[0], [*BOOT[1:], *arguments], encoding="utf-8", timeout=TIMEOUT, dimensions=(24, 300)
        )
        self.expect_exact, self.send = self.spawn.expect_exact, self.spawn.send

    def ends(self) -> int | None:
        self.spawn.expect(pexpect.EOF)
        self.spawn.close()
        status: int | None = self.spawn.exitstatus
        return status

    def close(self) -> None:
        self.spawn.close(force=True)


def test_at_a_terminal() -> None:
    with closing(Terminal("--hostfwd", "22")) as terminal:
        terminal.spawn.expect(r"VM 'vm' was (cloned|booted) in \d+\.\d\d s")
        terminal.spawn.expect(r" SSH +(ssh [^\r\n]*root@127\.0\.0\.1)\r\n")
        assert isinstance(terminal.spawn.match, re.Match)
        command = terminal.spawn.match[1]
        terminal.spawn.expect(r" QMP +\S[^\r\n]*\r\n")
        terminal.spawn.expect(r" 22/tcp +127\.0\.0\.1:\d+\r\n")
        terminal.expect_exact("This is its console; Ctrl-] ends the machine.")
        assert subprocess.check_output(["sh", "-c", f"{command} echo over ssh"], text=True) == "over ssh\n"
        terminal.send("\r")
        terminal.expect_exact("login: ")
        terminal.send("root\r")
        terminal.expect_exact("# ")
        terminal.send("echo $((6 * 7))\x03echo $((7 * 7))\r")  # Ctrl-C is the guest's
        terminal.expect_exact("49\r\n")
        terminal.send("\x1d")
        terminal.expect_exact("The machine has ended.")
        assert terminal.ends() == 0


def test_who_boots_it_sees_it_boot() -> None:
    with closing(Terminal("--start", "boot", "--append", "loglevel=7")) as terminal:
        terminal.expect_exact("Ctrl-] ends the machine.")
        terminal.expect_exact("Linux version")
        terminal.send("\x1d")
        assert terminal.ends() == 0


def test_a_guest_that_switches_itself_off() -> None:
    with closing(Terminal()) as terminal:
        terminal.expect_exact("Ctrl-] ends the machine.")
        terminal.send("\r")
        terminal.expect_exact("login: ")
        terminal.send("root\r")
        terminal.expect_exact("# ")
        terminal.send("poweroff\r")
        terminal.expect_exact("The machine has ended.")
        assert terminal.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("how", [["--run", "echo up; sleep 600"], ["--no-console"]], ids=["command", "waiting"])
def test_signals_leave_nothing(number: signal.Signals, how: list[str], temporary: Path) -> None:
    with subprocess.Popen(
        [*BOOT, *how], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()) not in ("up\n", "Ctrl-C ends it.\n"):
            assert line
        process.send_signal(number)
        process.communicate(timeout=TIMEOUT)
    assert process.returncode == (130 if how[0] == "--run" else 0)


def test_killed(temporary: Path) -> None:
    with subprocess.Popen([*BOOT, "--run", "echo up; sleep 600"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert gone(f"TMPDIR={temporary}", PATIENCE)
    subprocess.run([sys.executable, "-m", "pytest_kvm", "sweep"], check=True, capture_output=True)


def test_every_field_is_an_option() -> None:
    given = {"image", *FIELDS}
    assert given == set(CHECKS) - {"autostart"}  # that says who starts it


def test_firmware_and_board(tmp_path: Path) -> None:
    (tmp_path / "mine.bin").touch()
    told = ("--smbios", '{"1": {"serial": "S1"}}', "--fw-cfg", '{"opt/a": "b"}', "--watchdog", "pause", "--tpm", "2.0")
    result = boot("none", "--firmware", "mine.bin", *told, "--print-command", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    command = shlex.split(result.stdout.replace("\\\n", ""))
    for option, value in (
        ("-bios", str(tmp_path / "mine.bin")),
        ("-smbios", "type=1,serial=S1"),
        ("-fw_cfg", "name=opt/a,string=b"),
    ):
        assert command[command.index(option) + 1] == value
    assert "watchdog=pause" in command
    assert "-tpmdev" not in command  # nobody runs swtpm by hand


def test_uefi_by_hand() -> None:
    words = shlex.split(boot("none", "--firmware", "uefi", "--print-command").stdout.replace("\\\n", ""))
    assert any(word.startswith("if=pflash,") and word.endswith("snapshot=on") for word in words)
    started = subprocess.run(
        [*words, "-S"], input="\x01x", capture_output=True, text=True, check=False, timeout=TIMEOUT
    )
    assert (started.returncode, started.stderr) == (0, "")
