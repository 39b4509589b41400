"""Captions: token ids, encoded captions as files, and their cache. The text encoder itself is the caller's."""
