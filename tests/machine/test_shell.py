"""``vm.run`` and ``vm.popen`` over the guest's root shell."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from pytest_kvm import VM, CommandError, CommandTimeout, MachineError, ShellLost


def test_status_and_streams(shared: VM) -> None:
    result = shared.run("echo out; echo err >&2; exit 12", check=False)
    assert (result.returncode, result.stdout, result.stderr) == (12, "out\n", "err\n")
    assert result.command == "echo out; echo err >&2; exit 12"
    assert result.seconds > 0
    assert shared.via == "shell, as root"


def test_check(shared: VM) -> None:
    assert shared.run("exit 3", check=3).returncode == 3
    assert shared.run("exit 3", check={0, 3}).returncode == 3
    with pytest.raises(CommandError) as failure:
        shared.run("echo some; echo trouble >&2; exit 3", check={0, 2})
    assert str(failure.value) == (
        "VM 'shared': command returned status 3, expected 0, 2 (shell, as root): "
        "'echo some; echo trouble >&2; exit 3'\n"
        "stdout: some\n"
        "stderr: trouble"
    )
    assert (failure.value.returncode, failure.value.stdout, failure.value.stderr) == (3, "some\n", "trouble\n")


def test_a_list_is_quoted(shared: VM) -> None:
    assert shared.run(["printf", "%s|", "a b", "$HOME", "'"]).stdout == "a b|$HOME|'|"


def test_each_script_is_its_own(shared: VM) -> None:
    shared.run("cd /tmp; left=over; trap 'echo trap' EXIT; umask 077; set -e")
    assert shared.run("pwd; echo $left; umask").stdout == "/root\n\n0022\n"


def test_syntax_error_is_a_status(shared: VM) -> None:
    result = shared.run("if then", check=False)
    assert result.returncode == 2
    assert "syntax error" in result.stderr
    assert shared.run("echo ok").stdout == "ok\n"


def test_several_lines(shared: VM) -> None:
    script = "# a comment\nfor x in 1 2\ndo echo $x\ndone\ncat <<END\nhere $((20 + 1))\nEND\n"
    assert shared.run(script).stdout == "1\n2\nhere 21\n"


def test_env_and_cwd(shared: VM) -> None:
    result = shared.run("echo $A$B; pwd", env={"A": "it's ", "B": "$HOME"}, cwd="/tmp")
    assert result.stdout == "it's $HOME\n/tmp\n"
    assert shared.run("true", cwd="/no where", check=False).returncode != 0
    with pytest.raises(ValueError, match="'A-B' is not a name"):
        shared.run("true", env={"A-B": "1"})
    with pytest.raises(ValueError, match="NUL"):
        shared.run("echo \0")


def test_stdin(shared: VM) -> None:
    assert shared.run("cat", input="text with ümlaut\n").stdout == "text with ümlaut\n"
    assert shared.run("cat").stdout == ""
    assert shared.run("head -c 1", input="x" * 100_000).stdout == "x"
    # What was not read is not the next one's.
    assert shared.run("cat", input="mine").stdout == "mine"


def test_binary_in_and_out(shared: VM) -> None:
    data = bytes(range(256)) * 4096 + os.urandom(1 << 20)
    result = shared.run("cat", input=data, text=False, timeout=120)
    assert result.stdout == data
    assert shared.run(r"printf '\377'").stdout == "\\xff"


def test_much_output(shared: VM) -> None:
    result = shared.run("head -c 30000000 /dev/zero; head -c 1000000 /dev/zero >&2", text=False, timeout=180)
    assert (len(result.stdout), len(result.stderr)) == (30_000_000, 1_000_000)


def test_long_script(shared: VM) -> None:
    assert shared.run(f"x={'y' * 300_000}; echo ${{#x}}").stdout == "300000\n"


def test_kernel_messages_do_not_mix_in(shared: VM) -> None:
    result = shared.run("for i in $(seq 50); do echo '<1>kernel message' >/dev/kmsg; echo $i; done")
    assert result.stdout == "".join(f"{number}\n" for number in range(1, 51))
    assert result.stderr == ""


def test_ampersand_returns_at_once(shared: VM) -> None:
    assert shared.run("mkfifo /tmp/go; { read x </tmp/go; echo late; } & echo now", timeout=30).stdout == "now\n"
    # While the job holds stdout, its output must not become somebody else's.
    assert shared.run("echo go >/tmp/go; echo next").stdout == "next\n"
    assert shared.run("rm /tmp/go; echo last").stdout == "last\n"


def test_timeout_kills_the_process_group(shared: VM) -> None:
    with pytest.raises(CommandTimeout) as expiry:
        shared.run("echo partial; sleep 1234 | sleep 1234", timeout=1)
    assert expiry.value.stdout == "partial\n"
    assert "'shared': command did not end within 1 s and was killed" in str(expiry.value)
    assert shared.run("ps | grep -c '[s]leep 1234'", check=1).stdout == "0\n"


def test_command_that_kills_its_shell(shared: VM) -> None:
    assert shared.run("kill -9 $$", check=False).returncode == 128 + signal.SIGKILL
    with pytest.raises(ShellLost, match="the shell that ran it was killed") as loss:
        shared.run("killall -9 sh lane control; sleep 60")
    assert loss.value.command == "killall -9 sh lane control; sleep 60"
    assert shared.run("echo back").stdout == "back\n"


def test_name_that_does_not_resolve(shared: VM) -> None:
    with pytest.raises(CommandError, match=r"reaches nothing outside by default; vm\(internet=True\) opens"):
        shared.run("ping -c 1 example.org")


def test_popen(shared: VM) -> None:
    process = shared.popen("while read line; do echo got $line; done; exit 5", stdin=True)
    assert process.stdin is not None
    process.stdin.write("one\n")
    assert process.stdout.readline() == "got one\n"
    assert process.poll() is None
    # Another command meanwhile.
    assert shared.run("echo between").stdout == "between\n"
    process.stdin.write("two\n")
    process.stdin.close()
    assert process.wait(timeout=30) == 5
    assert process.stdout.read() == "got two\n"
    ended = shared.popen("exit", stdin=True)
    ended.wait(timeout=30)
    assert ended.stdin is not None
    with pytest.raises(BrokenPipeError):
        ended.stdin.write("x")


def test_popen_signals(shared: VM) -> None:
    process = shared.popen("trap 'echo interrupted; exit 7' INT; echo set; while :; do sleep 0.1; done")
    assert process.stdout.readline() == "set\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 7
    assert process.stdout.read() == "interrupted\n"
    with shared.popen("sleep 4321") as sleeping, pytest.raises(CommandTimeout, match=r"still running after 0\.1 s"):
        sleeping.wait(timeout=0.1)
    assert sleeping.returncode == 128 + signal.SIGKILL
    assert sleeping.communicate() == ("", "Killed\n") or sleeping.communicate() == ("", "")


def test_signal_reaches_only_its_command(shared: VM) -> None:
    ended = shared.popen("true")
    ended.wait(timeout=30)
    ended.kill()
    assert shared.shell is not None
    job = ended.job
    job.status = None  # as if its end were on the way
    shared.shell.signal(job, "KILL")
    assert shared.run("echo unharmed").stdout == "unharmed\n"


def test_paused_guest(shared: VM) -> None:
    shared.pause()
    with pytest.raises(CommandTimeout, match=r"within 0\.1 s and could not be killed"):
        shared.run("echo late", timeout=0.1)
    shared.resume()
    assert shared.run("echo next").stdout == "next\n"


def test_popen_reads_and_communicates(shared: VM) -> None:
    process = shared.popen("echo one; echo two; echo three")
    assert process.stdout.readline() == "one\n"
    assert process.communicate(timeout=30) == ("two\nthree\n", "")


def test_popen_communicate(shared: VM) -> None:
    out, err = shared.popen("cat; echo done >&2", stdin=True).communicate("hello", timeout=30)
    assert (out, err) == ("hello", "done\n")


def test_more_commands_than_lanes(shared: VM) -> None:
    running = [shared.popen("read x", stdin=True) for _ in range(7)]
    with pytest.raises(MachineError, match="7 commands run already, which is the limit"):
        shared.run("true")
    for process in running:
        process.communicate("\n", timeout=60)
    assert shared.run("echo free").stdout == "free\n"


def test_qemu_has_what_we_think(shared: VM) -> None:
    line = Path(f"/proc/{shared.pid}/cmdline").read_text().replace("\0", " ")
    assert "-nodefaults -no-user-config -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny" in line
