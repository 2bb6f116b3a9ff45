"""Logging in on the console of guests that play what real ones do, at their worst."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pexpect
import pytest

from pytest_kvm.errors import ConsoleTimeout, GuestPanic, LoginFailed
from pytest_kvm.guest.console import login as module
from pytest_kvm.spec.image import Image
from tests.guest.console.terminals import CALLER, KERNEL, LIMIT, STARTING, SYSTEMD, Actor, Line, line, playing

IMAGE = Image("disk", name="image", login="cirros", password="gocubsgo")
PROMPT = "vm login: "
FEDORA = "\x1b]0;bob@vm:~\x07\x1b[?2004h\x1b[01;32m[bob@vm ~]\x1b[00m# \x1b[0m"


@pytest.fixture
def console(tmp_path: Path) -> Iterator[Line]:
    with line(tmp_path, IMAGE) as made:
        yield made


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUIET", 0.2)
    monkeypatch.setattr(module, "_ANSWER", 0.4)
    monkeypatch.setattr(module, "_ECHO_PATIENCE", 0.4)
    monkeypatch.setattr(module, "_PAUSE", 0.1)


def usual(actor: Actor) -> None:
    actor.login("cirros", "gocubsgo")
    actor.shell("cirros")


def failure(console: Line, play: Callable[[Actor], None], **arguments: str) -> LoginFailed:
    with playing(console.guest, play), pytest.raises(LoginFailed) as caught:
        console.console.login(**arguments, timeout=LIMIT)
    return caught.value


def test_only_what_is_asked_for_is_typed(console: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    for patience in ("_QUIET", "_ANSWER", "_ECHO_PATIENCE"):
        monkeypatch.setattr(module, patience, LIMIT)

    def play(actor: Actor) -> None:
        assert console.port.looked_at.wait(LIMIT)
        usual(actor)

    console.print("[    0.000000] Linux version 6.1\r\nbooting\r\n")
    with playing(console.guest, play) as actor:
        console.console.login()
        assert actor.typed[:3] == ["cirros", "gocubsgo", ""]
        assert re.fullmatch(r" echo (\w{8})''(\w{8}); id -un; echo \2''\1", actor.typed[3])
        assert len(actor.typed) == 4
        console.console.sendline("echo $((6 * 7))")
        console.console.expect_exact("echo $((6 * 7))\r\n42\r\n~ # ", timeout=LIMIT)
        assert console.console.before == ""


@pytest.mark.parametrize("noise", [KERNEL, CALLER, SYSTEMD, STARTING])
@pytest.mark.parametrize("every", [1, 3, 1000])
def test_messages_in_the_middle_of_everything(console: Line, noise: str, every: int) -> None:
    def play(actor: Actor) -> None:
        actor.noise, actor.every = noise, every
        usual(actor)

    console.print(noise)
    with playing(console.guest, play) as actor:
        console.console.login()
        assert actor.words[:2] == ["cirros", "gocubsgo"]


def test_messages_that_never_end(console: Line) -> None:
    over = threading.Event()

    def babble() -> None:
        while not over.wait(0.001):
            console.guest.sendall(KERNEL.encode() * 20)

    console.print(f"\r\n{PROMPT}" + KERNEL * 2000)
    babbler = threading.Thread(target=babble)
    babbler.start()
    try:
        with playing(console.guest, usual):
            console.console.login()
            over.set()
            babbler.join(LIMIT)
    finally:
        over.set()


@pytest.mark.parametrize(
    ("shown", "typed"),
    [
        pytest.param(f"{PROMPT}random: crng init done\r\n", "", id="text-behind-it"),
        pytest.param("", "", id="nothing-to-be-seen"),
        pytest.param(f"{PROMPT}", "", id="a-prompt-that-may-be-old"),
    ],
)
def test_enter_makes_the_prompt_come_again(console: Line, shown: str, typed: str) -> None:
    def play(actor: Actor) -> None:
        assert actor.line() == typed
        usual(actor)

    console.print(shown)
    with playing(console.guest, play) as actor:
        console.console.login()
        assert actor.typed[:3] == ["", "cirros", "gocubsgo"]


def test_what_somebody_has_read_is_there_all_the_same(console: Line) -> None:
    def play(actor: Actor) -> None:
        actor.line()
        usual(actor)

    console.print(PROMPT)
    console.console.expect(PROMPT, timeout=LIMIT)
    with playing(console.guest, play) as actor:
        console.console.login()
        assert actor.typed[0] == ""


@pytest.mark.parametrize("prompt", ["~ # ", FEDORA, "\x1b[?2004h$ "])
def test_is_logged_in_already(console: Line, prompt: str) -> None:
    def play(actor: Actor) -> None:
        assert actor.line() == ""
        actor.shell("bob", prompt)

    console.print(prompt)
    with playing(console.guest, play) as actor:
        console.console.login()
        console.console.login("bob")
        assert [command[:5] for command in actor.typed] == ["", " echo"] * 2


def test_a_shell_whose_prompt_is_the_images(tmp_path: Path) -> None:
    image = Image("disk", name="image", login="cirros", password="gocubsgo", prompt=r"^vm> ")

    def play(actor: Actor) -> None:
        actor.login("cirros", "gocubsgo")
        actor.print("Costs 5 $ an hour\r\nvm> $ \r\n")
        actor.shell("cirros", "vm> ")

    with line(tmp_path, image) as console, playing(console.guest, play):
        console.console.login()


def test_an_old_prompt_is_not_believed(console: Line) -> None:
    def play(actor: Actor) -> None:
        actor.drop(1)  # what is typed at firmware
        actor.print("SeaBIOS\r\n[    0.000000] Linux version 6.1\r\nwelcome\r\n")
        usual(actor)

    console.print(f"{PROMPT}root\r\n~ # reboot\r\n~ # ")
    with playing(console.guest, play) as actor:
        console.console.login()
        assert actor.words[:2] == ["cirros", "gocubsgo"]


def test_a_login_prompt_that_was_taken_for_a_shell(console: Line) -> None:
    def play(actor: Actor) -> None:
        assert actor.line() == ""
        actor.print("Name of user # ")
        assert actor.line().startswith(" echo")
        actor.print("Password: ")
        assert actor.line(echo=False) == ""
        actor.print("\r\nLogin incorrect\r\n")
        usual(actor)

    console.print("~ # ")
    with playing(console.guest, play) as actor:
        console.console.login()
        assert actor.typed[3:5] == ["cirros", "gocubsgo"]


def test_somebody_elses_password_is_asked_for(console: Line) -> None:
    def play(actor: Actor) -> None:
        assert actor.line(echo=False) == ""
        actor.print("\r\nLogin incorrect\r\n")
        usual(actor)

    console.print(f"{PROMPT}bob\r\nPassword: ")
    with playing(console.guest, play) as actor:
        console.console.login()
        assert actor.typed[:3] == ["", "cirros", "gocubsgo"]


def test_a_getty_that_drops_what_comes_early(console: Line) -> None:
    def play(actor: Actor) -> None:
        actor.print(PROMPT)
        actor.drop(3)
        usual(actor)

    with playing(console.guest, play) as actor:
        console.console.login()
    assert "cirros" in actor.typed
    assert "gocubsgo" in actor.typed


def test_a_getty_that_does_not_echo(console: Line) -> None:
    def play(actor: Actor) -> None:
        name = ""
        while name != "cirros":
            actor.print(PROMPT)
            name = actor.line(echo=False)
        actor.shell("cirros")

    with playing(console.guest, play):
        console.console.login()


def test_prompts_for_what_was_typed_while_it_booted(console: Line) -> None:
    def play(actor: Actor) -> None:
        for _ in range(5):
            actor.print(f"\r\n{PROMPT}")
        usual(actor)

    with playing(console.guest, play) as actor:
        console.console.login()
        assert actor.words[:2] == ["cirros", "gocubsgo"]


@pytest.mark.parametrize("said", ["Login incorrect", "Login timed out after 60 seconds.", "", "Sorry"])
def test_a_second_attempt(console: Line, said: str) -> None:
    def play(actor: Actor) -> None:
        actor.getty()
        actor.print("Password: ")
        actor.line(echo=False)
        actor.print(f"\r\n{said}\r\n")
        usual(actor)

    with playing(console.guest, play) as actor:
        console.console.login()
        assert actor.words[:4] == ["cirros", "gocubsgo"] * 2


def test_a_password_that_got_lost(console: Line) -> None:
    def play(actor: Actor) -> None:
        actor.getty()
        actor.print("Password: ")
        actor.drop(len("gocubsgo\r"))
        assert actor.line(echo=False) == ""
        actor.print("\r\nLogin incorrect\r\n")
        usual(actor)

    with playing(console.guest, play) as actor:
        console.console.login()
        assert actor.typed[-4:-2] == ["cirros", "gocubsgo"]


def test_a_guest_that_is_not_open_yet(console: Line) -> None:
    def play(actor: Actor) -> None:
        for _ in range(4):
            actor.getty()
            actor.print("Password: ")
            actor.line(echo=False)
            actor.print('\r\n"System is booting up. Unprivileged users are not permitted to log in yet."\r\n')
        usual(actor)

    with playing(console.guest, play):
        console.console.login()


def test_refused(console: Line) -> None:
    error = failure(console, lambda actor: actor.login("cirros", "cubswin:)"))
    assert str(error) == (
        "VM 'vm': console login as 'cirros' was refused 3 times (Login incorrect). Console is at:\n"
        f"{console.console.tail()}\n"
        "The password was the image's, Image(password=)."
    )
    assert (error.user, error.said) == ("cirros", "Login incorrect")


def test_refused_with_a_password_of_ones_own(console: Line) -> None:
    error = failure(console, lambda actor: actor.login("bob", "right"), user="bob", password="wrong")
    assert str(error).startswith("VM 'vm': console login as 'bob' was refused 3 times (Login incorrect).")
    assert str(error).endswith("\nThe password was the argument of login().")


def test_a_name_that_is_refused(console: Line) -> None:
    def play(actor: Actor) -> None:
        while actor.getty():
            actor.print("\r\nLogin incorrect\r\n")

    assert str(failure(console, play)).endswith("\nIt was not asked for a password.")


def test_refused_until_the_time_is_over(console: Line) -> None:
    def play(actor: Actor) -> None:
        actor.getty()
        actor.print("Password: ")
        actor.line(echo=False)
        actor.print(f"\r\nLogin incorrect\r\n{PROMPT}")
        actor.line(echo=False)

    with playing(console.guest, play), pytest.raises(LoginFailed, match=r"was refused once \(Login incorrect\)"):
        console.console.login(timeout=1)


@pytest.mark.parametrize(
    "asked",
    [
        "You are required to change your password immediately (administrator enforced).\r\nCurrent password: ",
        "WARNING: Your password has expired.\r\nYou must change your password now.\r\nPassword: ",
        "Password change required but no TTY available.\r\nPassword: ",
        "Changing password for cirros.\r\n(current) UNIX password: ",
        "New password: ",
    ],
)
def test_the_password_is_to_be_changed(console: Line, asked: str) -> None:
    def play(actor: Actor) -> None:
        actor.getty()
        actor.print("Password: ")
        actor.line(echo=False)
        actor.print(f"\r\n{asked}")
        actor.line(echo=False)

    said = asked.partition("\r\n")[0].strip()
    error = failure(console, play)
    assert str(error) == (
        f"VM 'vm': the guest demands that 'cirros' changes the password at this login ({said}). Console is at:\n"
        f"{console.console.tail()}\n"
        "Let it not expire, as with 'chpasswd: {expire: false}' in user_data, or log in as another user."
    )
    assert error.said == said


@pytest.mark.parametrize(
    "said",
    [
        "This account is currently not available.",
        "Your account has expired; please contact your system administrator",
        "The account is locked due to 3 failed logins.",
        '"System is going down. Unprivileged users are not permitted to log in anymore."',
        "System closed for routine maintenance",
        "Too many logins for 'cirros'.",
    ],
)
def test_an_account_that_is_closed(console: Line, said: str) -> None:
    error = failure(console, lambda actor: actor.login("somebody", "else", refusal=f"{KERNEL}{said}\r\n"))
    assert str(error) == (
        f"VM 'vm': console login as 'cirros' is not possible: {said}. Console is at:\n{console.console.tail()}"
    )
    assert error.said == said


def test_no_password_is_known(console: Line) -> None:
    error = failure(console, lambda actor: actor.login("bob", ""), user="bob")
    assert str(error) == (
        "VM 'vm': the guest asks for the password of 'bob' on the console, and none is known. Console is at:\n"
        f"{console.console.tail()}\n"
        "Give it with login(password=), or with the image's Image(password=)."
    )


def test_an_empty_password_is_one(console: Line) -> None:
    def play(actor: Actor) -> None:
        actor.login("bob", "")
        actor.shell("bob")

    with playing(console.guest, play):
        console.console.login("bob", "")


def test_a_shell_that_is_none(console: Line) -> None:
    def play(actor: Actor) -> None:
        while True:
            actor.login("cirros", "gocubsgo")
            actor.print("Welcome\r\n")

    assert str(failure(console, play)) == (
        "VM 'vm': console login as 'cirros' ended at the login prompt again 3 times, without a word of refusal. "
        f"Console is at:\n{console.console.tail()}\n"
        "Does its shell (/etc/passwd) end at once, or is the guest closed (/etc/nologin)?"
    )


def test_somebody_else_is_logged_in(console: Line) -> None:
    def play(actor: Actor) -> None:
        actor.line()
        actor.shell("bob")
        actor.shell("alice")
        usual(actor)

    console.print("~ # ")
    with playing(console.guest, play) as actor:
        console.console.login("cirros")
    assert actor.typed.count("exit") == 2
    assert "gocubsgo" in actor.typed


def test_somebody_else_is_logged_in_again_and_again(console: Line) -> None:
    def play(actor: Actor) -> None:
        actor.line()
        while True:
            actor.shell("bob")

    console.print("~ # ")
    text = str(failure(console, play, user="root"))
    assert text.startswith(
        "VM 'vm': the console is logged in as 'bob', not as 'root', and is so again after 5 times 'exit'. "
        "Console is at:\n"
    )
    assert text.endswith("\nA getty that logs in by itself (--autologin) offers no other login.")


@pytest.mark.parametrize(
    ("answers", "awaited"),
    [
        ([], "a login or shell prompt"),
        ([PROMPT], "a password or shell prompt after the user name"),
        ([PROMPT, "Password: "], "a shell prompt after the password"),
        ([PROMPT, "Password: ", "~ # ", "~ # "], "the shell's answer to 'echo'"),
    ],
)
def test_nothing_more_comes(console: Line, answers: list[str], awaited: str) -> None:
    def play(actor: Actor) -> None:
        assert console.port.looked_at.wait(LIMIT)
        for answer in answers:
            actor.print(answer)
            actor.line(echo=not answer.startswith("Pass"))
        while True:
            actor.key()

    with playing(console.guest, play), pytest.raises(ConsoleTimeout) as caught:
        console.console.login(timeout=0.7)
    assert str(caught.value) == (
        "VM 'vm': console login as 'cirros' did not come to a shell within 0.7 s "
        f"(waiting for {awaited}; a shell's prompt is '[$#] '). Console is at:\n{console.console.tail()}"
    )
    assert isinstance(caught.value, pexpect.TIMEOUT)
    assert caught.value.timeout == 0.7


def test_a_timeout_says_by_which_prompts_a_shell_is_known(tmp_path: Path) -> None:
    image = Image("disk", name="image", prompt="vm> ")
    with (
        line(tmp_path, image) as console,
        pytest.raises(ConsoleTimeout, match=r"a shell's prompt is 'vm> ' or '\[\$#\] '"),
    ):
        console.console.login(timeout=0.1)


def test_the_machine_goes_off(console: Line) -> None:
    def play(actor: Actor) -> None:
        actor.getty()
        actor.hang_up()

    with playing(console.guest, play), pytest.raises(pexpect.EOF):
        console.console.login(timeout=LIMIT)


def test_the_guest_panics(console: Line) -> None:
    def play(actor: Actor) -> None:
        actor.getty()
        console.watch.fail(lambda: GuestPanic("Kernel panic"))
        actor.key()

    with playing(console.guest, play), pytest.raises(GuestPanic):
        console.console.login(timeout=LIMIT)
