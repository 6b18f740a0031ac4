"""Hashes that recognize a document when it is read again."""

from __future__ import annotations

import hashlib

from docmill.producer.intake.documents import Document


def content_hash_of(document: Document) -> str:
    """SHA-256 of the document's text."""
    digest = hashlib.sha256()
    for piece in document.open():
        digest.update(piece.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def identity_of(document: Document, content_hash: str) -> str:
    """SHA-256 of a document's source, name and content hash."""
    return hashlib.sha256(f"{document.source}\0{document.name}\0{content_hash}".encode()).hexdigest()
