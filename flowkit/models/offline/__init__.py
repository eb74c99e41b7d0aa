"""The offline demo model: it chooses tools by sentence embeddings, with no key and no server."""
