"""Secrets at rest: keys, their rotation, and what is said where they do not fit."""

import traceback
from collections.abc import Iterator

import pytest
from cryptography.fernet import Fernet

from stageline import config
from stageline.errors import StagelineError
from stageline.settings import encryption

MARKER = "marker-of-a-secret-5f1c"


@pytest.fixture(autouse=True)
def _fresh_configuration(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    use_keys(monkeypatch, None)
    yield
    config.settings.cache_clear()


def use_keys(monkeypatch: pytest.MonkeyPatch, keys: str | None) -> None:
    if keys is None:
        monkeypatch.delenv("STAGELINE_SECRET_KEY", raising=False)
    else:
        monkeypatch.setenv("STAGELINE_SECRET_KEY", keys)
    config.settings.cache_clear()


def test_what_was_encrypted_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    use_keys(monkeypatch, encryption.new_key())
    tokens = {encryption.encrypt("пароль ☂") for _ in range(2)}
    assert len(tokens) == 2
    assert {encryption.decrypt(token) for token in tokens} == {"пароль ☂"}
    assert not any("пароль" in token for token in tokens)


def test_the_first_key_encrypts_and_all_decrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = encryption.new_key(), encryption.new_key()
    use_keys(monkeypatch, old)
    before = encryption.encrypt(MARKER)
    use_keys(monkeypatch, f" {new} , {old},")
    assert encryption.decrypt(before) == MARKER
    assert Fernet(new).decrypt(encryption.encrypt(MARKER)) == MARKER.encode()
    use_keys(monkeypatch, new)
    with pytest.raises(StagelineError, match="another key"):
        encryption.decrypt(before)


def test_a_new_key_keeps_what_is_stored_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    use_keys(monkeypatch, encryption.with_new_key())
    stored = encryption.encrypt(MARKER)
    use_keys(monkeypatch, encryption.with_new_key() + ",nonsense")
    use_keys(monkeypatch, encryption.with_new_key())
    assert encryption.decrypt(stored) == MARKER


@pytest.mark.parametrize("keys", [None, "", " , ,"])
def test_a_missing_key_is_told_with_the_command_that_makes_one(
    monkeypatch: pytest.MonkeyPatch, keys: str | None
) -> None:
    use_keys(monkeypatch, keys)
    with pytest.raises(StagelineError, match=r"is not set.*stageline projects new-key >> \.env"):
        encryption.encrypt(MARKER)


@pytest.mark.parametrize(
    "bad", ["short", "ключ", "A" * 44, pytest.param(encryption.new_key()[:-2], id="cut off")]
)
def test_a_malformed_key_is_told_by_its_place_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, bad: str
) -> None:
    good = encryption.new_key()
    use_keys(monkeypatch, f"{good},{bad}")
    with pytest.raises(StagelineError, match=r"Key 2 of .*projects new-key >> \.env") as caught:
        encryption.encrypt(MARKER)
    told = "".join(traceback.format_exception(caught.value))
    assert MARKER not in told
    assert good not in told
    assert bad not in told


@pytest.mark.parametrize("token", ["", "junk", "жах", "gAAAAA==", "x" * 5000])
def test_what_is_no_token_is_one_error_that_does_not_show_it(
    monkeypatch: pytest.MonkeyPatch, token: str
) -> None:
    key = encryption.new_key()
    use_keys(monkeypatch, key)
    with pytest.raises(StagelineError, match="another key") as caught:
        encryption.decrypt(token)
    assert key not in str(caught.value)
    assert caught.value.__suppress_context__
