"""The hooks that pytest calls, each a line or two that says who does the work."""

from __future__ import annotations

import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from pytest_kvm.host.cache import is_cache
from pytest_kvm.plugin import hookspecs
from pytest_kvm.plugin.ahead import NEXT, prepare_next
from pytest_kvm.plugin.artifacts import add_artifacts
from pytest_kvm.plugin.cases import CASES, Cases, join_xml, split_xml
from pytest_kvm.plugin.collection import check_item, remove_wrong
from pytest_kvm.plugin.coverage import add_coverage
from pytest_kvm.plugin.debugging import check_debugging
from pytest_kvm.plugin.features import add_features
from pytest_kvm.plugin.header import header
from pytest_kvm.plugin.launching import MAKING, close_launcher
from pytest_kvm.plugin.options import OPTIONS, add_options, read_options
from pytest_kvm.plugin.outcome import check_use, note_use, shorten_report, told
from pytest_kvm.plugin.parametrize import parametrize
from pytest_kvm.plugin.rounds import run_rounds, stop_at_failure
from pytest_kvm.plugin.sessions import SESSION_MACHINES, SessionMachines
from pytest_kvm.plugin.signals import SIGNALS, Signals
from pytest_kvm.plugin.staying import stay
from pytest_kvm.plugin.variants import add_variants
from pytest_kvm.plugin.verdicts import judge_between, judge_call, once, tell
from pytest_kvm.spec.postponing import postponing

# pytest shows no frame of this module in tracebacks: these wrappers are around everybody's fixtures and tests.
__tracebackhide__ = True

# Written out (a test compares): importing the table of fields would cost a session without machines more
# than all the rest.
FIELDS = (
    "image=, machine=, accel=, cpu=, smp=, memory=, numa=, kernel=, initrd=, append=, firmware=, boot=, drives=, "
    "cdrom=, nics=, hostfwd=, internet=, user_data=, meta_data=, seed=, shares=, devices=, properties=, extras=, "
    "autostart=, ready=, timeout=, start=, gdb=, tpm=, watchdog=, vsock=, fw_cfg=, smbios=, args="
)
# What tests end with besides exceptions; pytest's own end of a session is none of them.
OUTCOMES = (pytest.fail.Exception, pytest.skip.Exception, pytest.xfail.Exception)
MARKERS = (
    f"vm(name, *, {FIELDS}): a virtual machine for the test. Without a name the fields hold for all "
    "of its machines; nearer markers win (module, class, function, parameter).",
    "vm_parametrize(argname, values, builder): run the test on a machine for each value; "
    "see pytest_kvm.vm_parametrize.",
    "vm_allow_splat(pattern, *, vm=None): kernel splats with this pattern, a regular expression, in report or title "
    "are no failure of the test; on one machine with vm='NAME'. Marks accumulate.",
    "vm_features(device, combinations, *, vm=None, untaken=()): run the test once for each combination of properties "
    "of a virtio device, such as 'packed=on,event_idx=off'; before it begins, what was switched off must not be "
    "negotiated, and what was left on must be, but for properties whose feature the guest's driver leaves untaken.",
    "vm_requires(*, config=, version=, module=, device=, accel=, qemu=): skip the test where the guest's kernel has no "
    "such configuration, version or module, QEMU no such device or version, or the accelerator does not work. Each is "
    "a text or several, versions are such as '>=6.1'. Marks accumulate.",
)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the hooks that others may implement."""
    pluginmanager.add_hookspecs(hookspecs)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Read the options, register the markers."""
    config.stash[OPTIONS] = read_options(config)
    config.stash[SESSION_MACHINES] = SessionMachines()
    config.stash[MAKING] = threading.Lock()
    config.stash[SIGNALS] = Signals(config)
    config.pluginmanager.register(config.stash[SIGNALS], "kvm-signals")
    add_artifacts(config)
    add_coverage(config)
    check_debugging(config)
    stay(config)
    stop_at_failure(config)
    config.stash[CASES] = Cases()
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Stand before the writer of JUnit's XML, which is there by now."""
    split_xml(session.config)


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Go away from before it."""
    join_xml(config)


def pytest_report_header(config: pytest.Config) -> str:
    """Say which QEMU, accelerator and image."""
    return header(config)


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Collect nothing from a cache directory that is in the project: kernels have tests in Python, too."""
    return is_cache(collection_path) or None


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Let a module be imported whose decorators make a wrong Drive: the test is reported later."""
    with postponing():
        return (yield)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Apply vm_parametrize, and what options ask for."""
    parametrize(metafunc)
    add_features(metafunc)
    add_variants(metafunc)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Check the declaration."""
    check_item(item)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out tests with a wrong declaration."""
    remove_wrong(items)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Remember who asks for session machines, and that a test came to use its marker."""
    note_use(fixturedef.argname, request)
    running = request.config.stash[SESSION_MACHINES].running_fixtures
    running.append(fixturedef.argname)
    try:
        return (yield)
    finally:
        running.pop()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests in rounds, if that is asked for."""
    return run_rounds(session)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Remember which test comes next."""
    item.stash[NEXT] = nextitem


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Hand over no broken machine; tell errors as what they are."""
    with told(item, setup=True):
        item.config.stash[SESSION_MACHINES].check(item)
        try:
            yield
        except BaseException as error:
            tell(item, error)
            raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Tell errors as what they are; meanwhile, make the next test's machine."""
    prepare_next(item)
    with told(item, setup=False):
        try:
            with item.config.stash[CASES].of(item):
                yield
        except (Exception, *OUTCOMES) as error:
            judge_call(item, error)
            raise
        judge_call(item, None)
    check_use(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None]:
    """Notice session machines that the test broke, and what they say after it."""
    item.config.stash[SESSION_MACHINES].note_broken(item)
    with told(item, setup=False):
        try:
            yield
        except (Exception, *OUTCOMES) as error:
            judge_between(item, error)
            single = once(item, error)
            if single is error:
                raise
            raise single from None
        judge_between(item, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show a verdict as what it is, and a case of a program in the guest."""
    report = yield
    shorten_report(item, call, report)
    item.config.stash[CASES].fill(report, call)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Close the launcher, after the session's fixtures, whatever goes wrong; then end as a signal wants it."""
    try:
        yield
    finally:
        try:
            close_launcher(session.config)
        finally:
            session.config.stash[SIGNALS].finish(session)
