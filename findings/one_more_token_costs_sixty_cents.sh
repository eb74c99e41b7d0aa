#!/usr/bin/env bash
# genai-prices 0.2.3, the price list that pydantic-ai uses: requests just below and above 200,000 tokens of input.
# Expected by most: a price that steps up at a bound holds for the tokens above it, as tiers of taxes and power do.
# Seen: it holds for the whole request, as the vendors charge: one more token doubles it, from 0.60 to 1.20 dollars for
# claude-sonnet-4-5, and the answer costs more as well. So the cost of a run isn't its tokens times a price: two requests
# of 150,000 cost half of one of 300,000.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check genai-prices==0.2.3
"$work/venv/bin/python" - <<'PYTHON'
from decimal import Decimal

from genai_prices import Usage, calc_price


def dollars(model: str, **tokens: int) -> Decimal:
    return calc_price(Usage(**tokens), model).total_price


sonnet = [dollars("claude-sonnet-4-5", input_tokens=count) for count in (200_000, 200_001)]
gemini = [dollars("gemini-2.5-pro", input_tokens=count) for count in (200_000, 200_001)]
print(sonnet, gemini)
assert sonnet == [Decimal("0.60"), Decimal("1.200006")], sonnet
assert gemini == [Decimal("0.25"), Decimal("0.5000025")], gemini
assert 2 * dollars("gemini-2.5-pro", input_tokens=150_000) * 2 == dollars("gemini-2.5-pro", input_tokens=300_000)
answers = [dollars("gemini-2.5-pro", input_tokens=count, output_tokens=1000) for count in (200_000, 200_001)]
assert answers[1] - gemini[1] > answers[0] - gemini[0], answers
PYTHON
echo "as stated"
