"""``python -m pytest_kvm`` is ``pytest-kvm``."""

import sys

from pytest_kvm.cli import main

sys.exit(main())
