"""The suites that every driver passes, for authors of drivers: what they subclass, and the worlds they are played in.

pytest is needed, which the service itself does without.
"""

import pytest

# What was compared is told for these modules as for tests of one's own.
pytest.register_assert_rewrite("stillframe.testing.compute", "stillframe.testing.storage")
