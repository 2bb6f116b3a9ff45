"""Images that a project describes."""

from __future__ import annotations

import pytest

from pytest_kvm.images.described import read_project
from tests.plugin.conftest import Scene, events

PROJECT = """
[tool.pytest-kvm.images.mine]
disk = "disk.img"
format = "raw"
ssh_user = "me"
ready = {pattern = "up$"}
resume = ["true"]

[tool.pytest-kvm.images."mine:2"]
kernel = "/boot/vmlinuz"
append = "quiet"
"""

HOOK = """
def pytest_kvm_images(config):
    from pytest_kvm import Image
    return {"mine": Image("other.img"), "hooked": Image(kernel="k")}
"""


def test_project_and_hook(scene: Scene) -> None:
    pytester = scene(
        """
from pytest_kvm.plugin.images import described_images
def test_it(pytestconfig):
    images = described_images(pytestconfig)
    assert sorted(images) == ["hooked", "mine", "mine:2"]
    assert images["mine"].disk == pytestconfig.rootpath / "other.img"
    assert images["hooked"].kernel == pytestconfig.rootpath / "k"
def test_they_reach_the_launcher(vm): pass
""",
        conftest=HOOK,
    )
    (pytester.path / "pyproject.toml").write_text(PROJECT)
    images = read_project(pytester.path)
    assert images["mine"].disk == pytester.path / "disk.img"
    assert (images["mine"].label, images["mine:2"].label) == ("mine", "mine:2")
    assert images["mine"].resume == ("true",)
    pytester.runpytest().assert_outcomes(passed=2)
    assert "'hooked': Image(" in events(pytester)[0]


@pytest.mark.parametrize(
    ("project", "text"),
    [
        ("[tool.pytest-kvm.images.mine]\ndisc = 'x'", "[tool.pytest-kvm.images.mine]: Image(disc=…): unknown keyword"),
        ("[tool.pytest-kvm.images.mine]\n", "[tool.pytest-kvm.images.mine]: Image(disk=None, kernel=None): there is"),
        ("[tool.pytest-kvm.images]\nmine = 'x'", "[tool.pytest-kvm.images.mine]: expected a table, got 'x'"),
        ("[tool.pytest-kvm]\nimage = 'x'", "[tool.pytest-kvm]: unknown key 'image'; did you mean 'images'?"),
        ("[tool.pytest-kvm]\nimages = 'x'", "tool.pytest-kvm.images: expected tables [tool.pytest-kvm.images.NAME]"),
        (
            "[tool.pytest-kvm.images.mine]\ndisk='d'\nready={pattern='('}",
            "[tool.pytest-kvm.images.mine]: ready: '(' is not a regular expression: ",
        ),
        (
            "[tool.pytest-kvm.images.mine]\ndisk='d'\nready={regex='x'}",
            "[tool.pytest-kvm.images.mine]: ready = {'regex': 'x'}: expected {pattern = '…'}",
        ),
        (
            "[tool.pytest-kvm.images.'my image']\ndisk='d'",
            "[tool.pytest-kvm.images.my image]: image 'my image': a name has letters, digits,",
        ),
        (
            "[tool.pytest-kvm.images.'my.img']\ndisk='d'",
            "[tool.pytest-kvm.images.my.img]: image 'my.img': a name with this ending would be taken for a path",
        ),
        ("[tool]\npytest-kvm = 3", "pyproject.toml: expected a table [tool.pytest-kvm], got 3"),
    ],
)
def test_wrong_project(scene: Scene, project: str, text: str) -> None:
    pytester = scene("def test_it(vm): pass")
    (pytester.path / "pyproject.toml").write_text(project)
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    assert text in result.stdout.str()
    assert str(pytester.path / "pyproject.toml") in result.stdout.str()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("['mine']", "pytest_kvm_images: expected a mapping of names to images, got ['mine']"),
        ("{'mine': 'disk.img'}", "pytest_kvm_images: expected Image(...) for 'mine', got 'disk.img'"),
        ("{'mine': Image(pytest_kvm.FromFixture('x'))}", "pytest_kvm_images: there are no fixtures for 'mine' yet"),
        ("{'my image': Image('x')}", "image 'my image': a name has letters, digits,"),
    ],
)
def test_wrong_hook(scene: Scene, answer: str, text: str) -> None:
    conftest = (
        f"import pytest_kvm\ndef pytest_kvm_images(config):\n    from pytest_kvm import Image\n    return {answer}\n"
    )
    pytester = scene("def test_it(vm): pass", conftest=conftest)
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    assert text in result.stdout.str()


def test_a_wrong_description_in_a_decorator_spoils_its_own_test_only(scene: Scene) -> None:
    pytester = scene("""
from pytest_kvm import Image
@pytest.mark.vm(image=Image("disk", frmat="raw"))
def test_wrong(vm): pass
def test_right(vm): pass
""")
    result = pytester.runpytest("--continue-on-collection-errors")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["test_it.py::test_wrong: Image(frmat=*): unknown keyword 'frmat'*'format'?"])
