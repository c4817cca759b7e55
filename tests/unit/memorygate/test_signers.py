"""Ed25519 signatures: who must sign, what counts, and what a broken policy file does."""

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from legivellum.receipts.receipt import Receipt, Signature, examine
from legivellum.receipts.signers import Signers, SignersUnreadable

TENANT = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"
BODY = {"receipt_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "task_id": "t", "phase": "accepted", "principal_ai": "alice"}


def text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def signers(key: Ed25519PrivateKey, tmp_path: Path) -> Signers:
    path = tmp_path / "signers.yaml"
    public = text(key.public_key().public_bytes_raw())
    path.write_text(f"tenants:\n  {TENANT}:\n    required: true\n    emitters:\n      alice: {{k1: {public}}}\n")
    return Signers.from_file(path)


def receipt(**more: object) -> Receipt:
    made = examine({**BODY, **more}, tenant=TENANT, emitter="alice")
    assert isinstance(made, Receipt), made
    return made


def signed(key: Ed25519PrivateKey, made: Receipt, key_id: str = "k1") -> Signature:
    return Signature(key_id=key_id, value=text(key.sign(made.form)))


@pytest.mark.invariant("INV-047")
def test_a_required_signature_must_be_there_and_hold(signers: Signers, key: Ed25519PrivateKey):
    """Absent, by another key, under another key's id, over another body, by another emitter: each is refused; a good one passes."""
    made = receipt()
    good = signed(key, made)
    assert signers.judge(TENANT, "alice", made.form, good) is None
    assert "requires" in str(signers.judge(TENANT, "alice", made.form, None))
    assert "does not fit" in str(signers.judge(TENANT, "alice", made.form, signed(Ed25519PrivateKey.generate(), made)))
    assert "does not fit" in str(signers.judge(TENANT, "alice", receipt(task_id="u").form, good))
    assert "not one of this emitter's" in str(signers.judge(TENANT, "alice", made.form, signed(key, made, "k2")))
    assert "not one of this emitter's" in str(signers.judge(TENANT, "bob", made.form, good))


@pytest.mark.invariant("INV-047")
def test_where_none_is_required_a_wrong_one_is_still_refused(signers: Signers, key: Ed25519PrivateKey):
    """Another tenant may send unsigned receipts, and no signature of a key that it did not name."""
    made = receipt()
    assert signers.judge(OTHER, "alice", made.form, None) is None
    assert signers.judge(OTHER, "alice", made.form, signed(key, made)) is not None
    assert Signers.none().judge(TENANT, "alice", made.form, None) is None


def test_the_signature_is_over_the_receipt_without_itself(key: Ed25519PrivateKey):
    """A receipt with and without its signature has one canonical form."""
    made = receipt()
    signature = signed(key, made)
    assert receipt(signature=signature.model_dump()).form == made.form


@pytest.mark.invariant("EXT-19")
@pytest.mark.parametrize(
    "content",
    [
        "tenants: [",
        "tenants: 7",
        "{}",
        "tenants:\n  t: {emitters: {a: {k: c2hvcnQ}}}",
        "tenants:\n  t: {emitters: {a: {k: 7}}}",
        None,
    ],
)
def test_a_policy_that_cannot_be_read_is_an_error(tmp_path: Path, content: str | None):
    """Missing, no YAML, another shape, a key of the wrong length: nothing starts without what it was told to require."""
    path = tmp_path / "signers.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SignersUnreadable):
        Signers.from_file(path)
