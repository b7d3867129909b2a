"""What the doctor makes of a lock file."""

from stageline.doctor import locked


def test_packages_of_other_platforms_are_left_out() -> None:
    text = """\
alembic==1.2.3 \\
    --hash=sha256:00
Some_Package.Name==4 ; python_version >= "3.8" \\
    --hash=sha256:00 \\
    --hash=sha256:01
colorama==5 ; sys_platform == "never" \\
    --hash=sha256:00
# a comment
"""
    assert locked(text) == {"alembic": "1.2.3", "some-package-name": "4"}
