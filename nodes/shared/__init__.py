"""What several nodes need. It may use comfy/; no node, and nothing in comfy/, may be used here."""
