#!/usr/bin/env bash
# langchain-core 1.8.3: a tool with a parameter named `callbacks`, here the numbers to call back.
# Expected by most: a parameter with a type and without a default is in the schema that the model gets, whatever its name.
# Seen: it isn't there; the function is called all the same, with the framework's callback manager in place of a list,
# and whatever was given for it is thrown away. No word at decoration or at the call.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check langchain-core==1.8.3
"$work/venv/bin/python" - <<'PYTHON'
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool

received = []


@tool
def plan_calls(callbacks: list[str], note: str) -> str:
    """Plan the calls to customers who asked to be called back."""
    received.append(callbacks)
    return "planned"


schema = convert_to_openai_tool(plan_calls)["function"]["parameters"]
answer = plan_calls.invoke({"callbacks": ["+82 2 123 4567"], "note": "before noon"})
print(list(schema["properties"]), answer, type(received[0]).__name__)
assert list(schema["properties"]) == schema["required"] == ["note"]
assert (answer, type(received[0]).__name__) == ("planned", "CallbackManager")
PYTHON
echo "as stated"
