"""Translate the setting `thinking` to each vendor's parameters.

One setting, `thinking`: None leaves it to the server, True and False switch it, a word is an effort (`"low"`), a number
is a budget in tokens. Each dialect below translates the values it supports, and raises `ConfigurationError` for the rest:
a setting that a server silently ignores is worse than one it refuses. Sources: the vendors' pages on reasoning, read
in November 2026; their addresses stand at the functions.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from flowkit.codec import JSON
from flowkit.errors import ConfigurationError
from flowkit.models.wire.claude_models import claude_rules
from flowkit.models.wire.vendors import Family, family_of, is_host, short_name, thinks, version_of

Thinking = bool | str | int | None
Api = Literal["chat", "responses", "anthropic"]
Dialect = Literal["openai", "claude", "gemini", "deepseek", "qwen", "switch", "template", "openrouter"]
"""The spellings: `switch` is `{"thinking": {"type": …}}`, as GLM and Kimi take it, `template` the argument of a chat
template, as vLLM, SGLang and llama.cpp take it for open models."""

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
CLAUDE_BUDGET = 4096
"""Tokens for an older Claude that is only told to think; its API has no default."""


@dataclass(frozen=True, slots=True)
class _Ask:
    """The requested thinking and the model; `on` is None if an effort or a budget is given."""

    model: str
    api: Api
    on: bool | None = None
    effort: str | None = None
    budget: int | None = None

    def refuse(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"thinking of {self.model!r}: {why}")


def thinking_fields(
    thinking: Thinking, *, model: str, base_url: str, api: Api = "chat", dialect: Dialect | None = None
) -> dict[str, JSON]:
    """Return the fields of a request's body for this; empty for None.

    >>> thinking_fields("low", model="gpt-5", base_url="https://api.openai.com/v1")
    {'reasoning_effort': 'low'}
    """
    if thinking is None:
        return {}
    ask = _read(thinking, model, api)
    chosen = dialect or _find_dialect(base_url, model)
    if chosen is None:
        raise ask.refuse("how to request it from its server isn't known; set thinking_dialect= or extra_body=")
    if api == "responses" and chosen not in ("openai", "openrouter", "deepseek"):
        raise ask.refuse(f"it can't be said in the Responses API for {chosen!r}; use api='chat' or extra_body=")
    return _SPEAK[chosen](ask)


def _read(thinking: bool | str | int, model: str, api: Api) -> _Ask:
    if isinstance(thinking, bool):
        return _Ask(model, api, on=thinking)
    if isinstance(thinking, int):
        if thinking < 0:
            raise ConfigurationError(f"thinking is {thinking}, expected at least 0 tokens")
        return _Ask(model, api, on=False) if thinking == 0 else _Ask(model, api, budget=thinking)
    if thinking not in EFFORTS:
        raise ConfigurationError(f"thinking is {thinking!r}, expected True, False, a number or one of {EFFORTS}")
    return _Ask(model, api, on=False) if thinking == "none" else _Ask(model, api, effort=thinking)


_BY_FAMILY: dict[Family, Dialect] = {
    "openai": "openai",
    "claude": "claude",
    "gemini": "gemini",
    "deepseek": "deepseek",
    "qwen": "template",
    "glm": "template",
    "kimi": "switch",
    "grok": "openai",
}


def _find_dialect(base_url: str, model: str) -> Dialect | None:
    """Find the dialect: first that of a known gateway, then that of the vendor's server, then by the model's name."""
    if is_host(base_url, "openrouter.ai", "ai-gateway.vercel.sh"):
        return "openrouter"
    if is_host(base_url, "aliyuncs.com"):
        return "qwen"
    if is_host(base_url, "z.ai", "bigmodel.cn", "moonshot.ai", "moonshot.cn"):
        return "switch"
    if is_host(base_url, "groq.com", "x.ai", "mistral.ai"):
        return "openai"
    return _BY_FAMILY.get(family_of(model))


def _openai(ask: _Ask) -> dict[str, JSON]:
    """Write an effort. https://platform.openai.com/docs/guides/reasoning"""
    if ask.budget is not None:
        raise ask.refuse(f"it takes an effort such as 'low', not {ask.budget} tokens")
    is_own = family_of(ask.model) == "openai"
    if is_own and not thinks(ask.model):
        if ask.on is False:
            return {}
        raise ask.refuse("this model doesn't think; leave thinking= out for it")
    effort = ask.effort or ("none" if ask.on is False else "medium")
    if is_own:
        _check_openai_effort(ask, effort)
    if ask.api == "responses":
        return {"reasoning": {"effort": effort} if effort == "none" else {"effort": effort, "summary": "auto"}}
    return {"reasoning_effort": effort}


_OPENAI_SINCE = {"none": (5, 1), "xhigh": (5, 2), "max": (5, 6)}
"""The version of gpt that an effort came with; models before it refuse the word, and so do o3 and gpt-oss."""


def _check_openai_effort(ask: _Ask, effort: str) -> None:
    version = version_of(ask.model)
    if effort == "minimal" and version != (5, 0):
        raise ask.refuse("only gpt-5 takes 'minimal', not the versions after it; ask for 'low' or False")
    if version < _OPENAI_SINCE.get(effort, version) and not (effort == "xhigh" and "codex-max" in ask.model):
        if effort == "none":
            raise ask.refuse("it can't be turned off; the least is 'minimal' for gpt-5 and 'low' for others")
        most = "xhigh" if version >= _OPENAI_SINCE["xhigh"] else "high"
        raise ask.refuse(f"the most it takes is {most!r}, not {effort!r}")


def _claude(ask: _Ask) -> dict[str, JSON]:
    """Write a budget until 4.5, an effort from 4.7 on, either in between, as the table of models says.

    https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
    """
    rules = claude_rules(ask.model)
    if ask.on is False:
        if rules.off is None:
            raise ask.refuse("it can't be turned off; ask for 'low'")
        return {"thinking": {"type": rules.off}} if rules.thinking != "none" else {}
    if rules.thinking == "none":
        raise ask.refuse("this model doesn't think; leave thinking= out for it")
    if ask.budget is not None:
        if rules.thinking == "adaptive":
            raise ask.refuse(f"it takes an effort such as 'low', not {ask.budget} tokens")
        if ask.budget < 1024:
            raise ask.refuse(f"the budget is {ask.budget} tokens, at least 1024")
        return {"thinking": {"type": "enabled", "budget_tokens": ask.budget}}
    if rules.thinking == "budget":
        if ask.effort is not None:
            raise ask.refuse(f"it takes a number of tokens, at least 1024, not {ask.effort!r}")
        return {"thinking": {"type": "enabled", "budget_tokens": CLAUDE_BUDGET}}
    fields: dict[str, JSON] = {"thinking": {"type": "adaptive"}}
    if ask.effort is not None:
        if ask.effort not in rules.efforts:
            raise ask.refuse(f"it takes one of {', '.join(rules.efforts)}, not {ask.effort!r}")
        fields["output_config"] = {"effort": ask.effort}
    return fields


def _gemini(ask: _Ask) -> dict[str, JSON]:
    """Write an effort, or a budget until 2.5; they exclude each other. https://ai.google.dev/gemini-api/docs/openai

    The inner `extra_body` is part of the wire's form, not of the `openai` package's.
    """
    version = version_of(ask.model)
    if ask.on is False:
        if version >= (3, 0) or "pro" in short_name(ask.model):
            raise ask.refuse("it can't be turned off; ask for 'low'")
        return {"reasoning_effort": "none"}
    if ask.effort is not None:
        if ask.effort in ("xhigh", "max"):
            raise ask.refuse(f"the most it takes is 'high', not {ask.effort!r}")
        return {"reasoning_effort": ask.effort}
    config: dict[str, JSON] = {"include_thoughts": True}
    if ask.budget is not None:
        if version >= (3, 0):
            raise ask.refuse(f"it takes an effort such as 'low', not {ask.budget} tokens")
        config["thinking_budget"] = ask.budget
    return {"extra_body": {"google": {"thinking_config": config}}}


def _deepseek(ask: _Ask) -> dict[str, JSON]:
    """Write a switch and an effort. https://api-docs.deepseek.com/guides/thinking_mode"""
    if ask.budget is not None:
        raise ask.refuse(f"it takes an effort such as 'low', not {ask.budget} tokens")
    if ask.api == "responses":
        return {"reasoning": {"effort": ask.effort or ("none" if ask.on is False else "high")}}
    fields: dict[str, JSON] = {"thinking": {"type": "disabled" if ask.on is False else "enabled"}}
    if ask.effort is not None:
        fields["reasoning_effort"] = ask.effort
    return fields


def _qwen(ask: _Ask) -> dict[str, JSON]:
    """Write a switch and a budget. https://www.alibabacloud.com/help/en/model-studio/deep-thinking"""
    if ask.effort is not None:
        raise ask.refuse(f"it takes True, False or a number of tokens, not {ask.effort!r}")
    fields: dict[str, JSON] = {"enable_thinking": ask.on is not False}
    if ask.budget is not None:
        fields["thinking_budget"] = ask.budget
    return fields


def _switch(ask: _Ask) -> dict[str, JSON]:
    """Write on or off (https://docs.z.ai/guides/capabilities/thinking-mode); Kimi K3 and later: always on, an effort.

    https://platform.kimi.ai/docs/guide/use-thinking-effort
    """
    if family_of(ask.model) == "kimi" and re.search(r"k[3-9]", short_name(ask.model)):
        if ask.on is False:
            raise ask.refuse("it can't be turned off; ask for 'low'")
        if ask.budget is not None or ask.effort not in (None, "low", "high", "max"):
            raise ask.refuse(f"it takes 'low', 'high' or 'max', not {ask.effort or ask.budget!r}")
        return {"reasoning_effort": ask.effort or "high"}
    if ask.on is None:
        raise ask.refuse(f"it takes True or False, not {ask.effort or ask.budget!r}")
    return {"thinking": {"type": "enabled" if ask.on else "disabled"}}


def _template(ask: _Ask) -> dict[str, JSON]:
    """Write on or off, for the chat template. https://docs.vllm.ai/en/latest/features/reasoning_outputs/"""
    if ask.on is None:
        raise ask.refuse(f"a chat template takes True or False, not {ask.effort or ask.budget!r}")
    return {"chat_template_kwargs": {"enable_thinking": ask.on}}


def _openrouter(ask: _Ask) -> dict[str, JSON]:
    """Write all of it, for every vendor behind it. https://openrouter.ai/docs/use-cases/reasoning-tokens"""
    if ask.budget is not None:
        return {"reasoning": {"max_tokens": ask.budget}}
    if ask.effort is not None:
        return {"reasoning": {"effort": ask.effort}}
    return {"reasoning": {"enabled": ask.on}}


_SPEAK: dict[Dialect, Callable[[_Ask], dict[str, JSON]]] = {
    "openai": _openai,
    "claude": _claude,
    "gemini": _gemini,
    "deepseek": _deepseek,
    "qwen": _qwen,
    "switch": _switch,
    "template": _template,
    "openrouter": _openrouter,
}
