"""The package's door."""

import durabatch.sandbox


def test_the_door_names_everything_that_is_public():
    assert durabatch.sandbox.__all__ == ["Sandbox", "SandboxAdmin", "SandboxError", "serve"]
    assert all(hasattr(durabatch.sandbox, name) for name in durabatch.sandbox.__all__)
