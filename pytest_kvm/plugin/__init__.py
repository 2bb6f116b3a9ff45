"""What does pytest see? Its hooks and fixtures; the only room that imports pytest."""

from pytest_kvm.plugin.fixtures import (
    _vm_pool,
    vm,
    vm_defaults,
    vm_factory,
    vm_session_factory,
    vm_specs,
    vms,
)
from pytest_kvm.plugin.hooks import (
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_fixture_setup,
    pytest_generate_tests,
    pytest_itemcollected,
    pytest_make_collect_report,
    pytest_report_header,
    pytest_runtest_call,
    pytest_runtest_setup,
    pytest_runtest_teardown,
    pytest_sessionfinish,
)

__all__ = [
    "_vm_pool",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_fixture_setup",
    "pytest_generate_tests",
    "pytest_itemcollected",
    "pytest_make_collect_report",
    "pytest_report_header",
    "pytest_runtest_call",
    "pytest_runtest_setup",
    "pytest_runtest_teardown",
    "pytest_sessionfinish",
    "vm",
    "vm_defaults",
    "vm_factory",
    "vm_session_factory",
    "vm_specs",
    "vms",
]
