"""Pictures before and after a decode: files, framing, colour, quality. No network here."""
