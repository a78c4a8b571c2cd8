"""Readers of package archives; each string that one yields is a document.

Instruction data is plain text with named parts, so that one loss over all tokens serves language modeling and
instructions alike.
"""

from prosparse.data.readers import dialogues, encyclopedias, files, questions  # each registers its readers
from prosparse.data.readers.registry import READERS, Reader

__all__ = ["READERS", "Reader", "dialogues", "encyclopedias", "files", "questions"]
