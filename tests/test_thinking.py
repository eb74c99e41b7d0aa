"""Thinking in the words of each vendor."""

import pytest

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError
from flowkit.models.wire.thinking import Api, Dialect, Thinking, thinking_fields

OPENAI = "https://api.openai.com/v1"
ANTHROPIC = "https://api.anthropic.com/v1"
GOOGLE = "https://generativelanguage.googleapis.com/v1beta/openai"
DEEPSEEK = "https://api.deepseek.com"
DASHSCOPE = "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"
OPENROUTER = "https://openrouter.ai/api/v1"
LOCAL = "http://127.0.0.1:8080/v1"


def budget(config: dict[str, JSON]) -> dict[str, JSON]:
    return {"extra_body": {"google": {"thinking_config": config}}}


@pytest.mark.parametrize(
    ("model", "base_url", "thinking", "expected"),
    [
        ("anything", LOCAL, None, {}),
        ("gpt-5", OPENAI, "minimal", {"reasoning_effort": "minimal"}),
        ("gpt-5.2", OPENAI, False, {"reasoning_effort": "none"}),
        ("gpt-5.2", OPENAI, True, {"reasoning_effort": "medium"}),
        ("gpt-5.2", OPENAI, "xhigh", {"reasoning_effort": "xhigh"}),
        ("gpt-5.1-codex-max", OPENAI, "xhigh", {"reasoning_effort": "xhigh"}),
        ("gpt-6-luna", OPENAI, "max", {"reasoning_effort": "max"}),
        ("o4-mini", OPENAI, "high", {"reasoning_effort": "high"}),
        ("gpt-4.1", OPENAI, False, {}),
        ("gpt-5-chat-latest", OPENAI, False, {}),
        ("claude-sonnet-4-5", ANTHROPIC, 2048, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        ("claude-sonnet-4-5", ANTHROPIC, True, {"thinking": {"type": "enabled", "budget_tokens": 4096}}),
        ("claude-sonnet-4-5", ANTHROPIC, False, {"thinking": {"type": "disabled"}}),
        ("claude-opus-4-6", ANTHROPIC, 2048, {"thinking": {"type": "enabled", "budget_tokens": 2048}}),
        ("claude-opus-4-7", ANTHROPIC, True, {"thinking": {"type": "adaptive"}}),
        (
            "claude-opus-4-7",
            ANTHROPIC,
            "low",
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        ),
        ("claude-opus-5", ANTHROPIC, False, {"thinking": {"type": "disabled"}}),
        ("claude-sonnet-5-5", ANTHROPIC, False, {"thinking": {"type": "between_tools"}}),
        ("claude-3-7-sonnet-20250219", LOCAL, 1024, {"thinking": {"type": "enabled", "budget_tokens": 1024}}),
        ("gemini-2.5-flash", GOOGLE, False, {"reasoning_effort": "none"}),
        ("gemini-2.5-flash", GOOGLE, "low", {"reasoning_effort": "low"}),
        ("gemini-2.5-pro", GOOGLE, 512, budget({"include_thoughts": True, "thinking_budget": 512})),
        ("gemini-3-pro", GOOGLE, True, budget({"include_thoughts": True})),
        ("deepseek-chat", DEEPSEEK, False, {"thinking": {"type": "disabled"}}),
        ("deepseek-v4", DEEPSEEK, "max", {"thinking": {"type": "enabled"}, "reasoning_effort": "max"}),
        ("qwen-plus", DASHSCOPE, False, {"enable_thinking": False}),
        ("qwen-plus", DASHSCOPE, 800, {"enable_thinking": True, "thinking_budget": 800}),
        ("Qwen/Qwen3-8B", LOCAL, False, {"chat_template_kwargs": {"enable_thinking": False}}),
        ("glm-4.6", "https://api.z.ai/api/paas/v4", True, {"thinking": {"type": "enabled"}}),
        ("kimi-k2.5", "https://api.moonshot.ai/v1", False, {"thinking": {"type": "disabled"}}),
        ("kimi-k3", "https://api.moonshot.ai/v1", "low", {"reasoning_effort": "low"}),
        ("kimi-k3.1-pro", "https://api.moonshot.ai/v1", True, {"reasoning_effort": "high"}),
        ("qwen/qwen3-32b", "https://api.groq.com/openai/v1", False, {"reasoning_effort": "none"}),
        ("anthropic/claude-sonnet-4.5", OPENROUTER, True, {"reasoning": {"enabled": True}}),
        ("anthropic/claude-sonnet-4.5", OPENROUTER, False, {"reasoning": {"enabled": False}}),
        ("openai/gpt-5", OPENROUTER, "low", {"reasoning": {"effort": "low"}}),
        ("google/gemini-2.5-pro", OPENROUTER, 2000, {"reasoning": {"max_tokens": 2000}}),
        ("gpt-5.2", OPENAI, "none", {"reasoning_effort": "none"}),
        ("qwen-plus", DASHSCOPE, 0, {"enable_thinking": False}),
    ],
)
def test_each_vendor_is_told_in_its_own_words(
    model: str, base_url: str, thinking: Thinking, expected: dict[str, JSON]
) -> None:
    assert thinking_fields(thinking, model=model, base_url=base_url) == expected


@pytest.mark.parametrize(
    ("model", "base_url", "thinking", "expected"),
    [
        ("gpt-5", OPENAI, "low", {"reasoning": {"effort": "low", "summary": "auto"}}),
        ("gpt-5.2", OPENAI, False, {"reasoning": {"effort": "none"}}),
        ("deepseek-v4", DEEPSEEK, False, {"reasoning": {"effort": "none"}}),
        ("openai/gpt-5", OPENROUTER, 900, {"reasoning": {"max_tokens": 900}}),
    ],
)
def test_the_responses_api_has_one_field(
    model: str, base_url: str, thinking: Thinking, expected: dict[str, JSON]
) -> None:
    assert thinking_fields(thinking, model=model, base_url=base_url, api="responses") == expected


@pytest.mark.parametrize(
    ("model", "base_url", "thinking", "api", "message"),
    [
        ("gpt-5", OPENAI, 2000, "chat", "takes an effort such as 'low', not 2000 tokens"),
        ("gpt-5", OPENAI, False, "chat", "can't be turned off"),
        ("gpt-5-mini-2025-08-07", OPENAI, False, "chat", "can't be turned off"),
        ("o3", OPENAI, False, "chat", "can't be turned off"),
        ("gpt-oss-120b", OPENAI, False, "chat", "can't be turned off"),
        ("gpt-5.6-terra", OPENAI, "minimal", "chat", "only gpt-5 takes 'minimal'"),
        ("gpt-5.1", OPENAI, "xhigh", "chat", "the most it takes is 'high'"),
        ("gpt-5.5", OPENAI, "max", "chat", "the most it takes is 'xhigh'"),
        ("gpt-4.1", OPENAI, True, "chat", "doesn't think"),
        ("claude-sonnet-4-5", ANTHROPIC, "low", "chat", "takes a number of tokens"),
        ("claude-opus-4-7", ANTHROPIC, 2048, "chat", "takes an effort"),
        ("claude-opus-5-5", ANTHROPIC, False, "chat", "can't be turned off"),
        ("claude-fable-5-1", ANTHROPIC, False, "chat", "can't be turned off"),
        ("claude-sonnet-4-5", ANTHROPIC, 100, "chat", "at least 1024"),
        ("gemini-2.5-pro", GOOGLE, False, "chat", "can't be turned off"),
        ("gemini-3-flash", GOOGLE, 500, "chat", "takes an effort"),
        ("gemini-2.5-flash", GOOGLE, "max", "chat", "the most it takes is 'high'"),
        ("deepseek-v4", DEEPSEEK, 500, "chat", "takes an effort"),
        ("qwen-plus", DASHSCOPE, "low", "chat", "takes True, False or a number"),
        ("qwen3-8b", LOCAL, 500, "chat", "takes True or False"),
        ("kimi-k2.5", "https://api.moonshot.ai/v1", "low", "chat", "takes True or False"),
        ("kimi-k3", "https://api.moonshot.ai/v1", False, "chat", "can't be turned off"),
        ("kimi-k3", "https://api.moonshot.ai/v1", "medium", "chat", "takes 'low', 'high' or 'max'"),
        ("llama-3.3", LOCAL, True, "chat", "thinking_dialect= or extra_body="),
        ("claude-opus-4-7", ANTHROPIC, True, "responses", "use api='chat'"),
        ("gpt-5", OPENAI, "hard", "chat", "expected True, False, a number or one of"),
        ("gpt-5", OPENAI, -1, "chat", "at least 0"),
    ],
)
def test_what_a_vendor_cannot_be_told_is_an_error(
    model: str, base_url: str, thinking: Thinking, api: Api, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        thinking_fields(thinking, model=model, base_url=base_url, api=api)


@pytest.mark.parametrize(
    ("dialect", "expected"),
    [
        ("openai", {"reasoning_effort": "none"}),
        ("template", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("switch", {"thinking": {"type": "disabled"}}),
    ],
)
def test_a_gateway_with_names_of_its_own_is_told_which_words_to_use(
    dialect: Dialect, expected: dict[str, JSON]
) -> None:
    assert thinking_fields(False, model="our-model", base_url=LOCAL, dialect=dialect) == expected
