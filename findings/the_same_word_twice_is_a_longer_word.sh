#!/usr/bin/env bash
# langchain-core 1.8.3: two pieces of one streamed answer that both name the service tier, as servers do in each piece.
# Expected by most: facts about the answer that are equal in both pieces stay as they are when the pieces are added.
# Seen: texts are put one behind the other, "defaultdefault", as if they were parts of the answer; numbers stay. Only a
# few names are spared, so a log of tiers or fingerprints depends on the number of pieces.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check langchain-core==1.8.3
"$work/venv/bin/python" - <<'PYTHON'
from langchain_core.messages import AIMessageChunk

said = {"service_tier": "default", "system_fingerprint": "fp_1", "created": 1796000000, "model_provider": "openai"}
whole = AIMessageChunk(content="It is ", response_metadata=said)
for word in ("on its ", "way."):
    whole = whole + AIMessageChunk(content=word, response_metadata=said)
print(whole.content, whole.response_metadata)
assert whole.content == "It is on its way."
assert whole.response_metadata["service_tier"] == "default" * 3
assert whole.response_metadata["system_fingerprint"] == "fp_1" * 3
assert whole.response_metadata["created"] == 1796000000
assert whole.response_metadata["model_provider"] == "openai"
PYTHON
echo "as stated"
