"""Every name that telemetry uses, in one table: the conventions for generative AI aren't stable, and names change."""

from urllib.parse import urlsplit

SCHEMA_URL = "https://opentelemetry.io/schemas/gen-ai/0.1.0"
"""The conventions that these names are from."""

OPERATION = "gen_ai.operation.name"
INVOKE_AGENT = "invoke_agent"
INVOKE_WORKFLOW = "invoke_workflow"
CHAT = "chat"
EXECUTE_TOOL = "execute_tool"

AGENT_NAME = "gen_ai.agent.name"
WORKFLOW_NAME = "gen_ai.workflow.name"
CONVERSATION_ID = "gen_ai.conversation.id"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
WRITTEN_TOKENS = "gen_ai.usage.cache_write.input_tokens"
TOOL_NAME = "gen_ai.tool.name"
TOOL_TYPE = "gen_ai.tool.type"
CALL_ID = "gen_ai.tool.call.id"
ERROR_TYPE = "error.type"
USER = "enduser.id"

SYSTEM_INSTRUCTIONS = "gen_ai.system_instructions"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOOL_DEFINITIONS = "gen_ai.tool.definitions"
CALL_ARGUMENTS = "gen_ai.tool.call.arguments"
CALL_RESULT = "gen_ai.tool.call.result"

RUN_ID = "flowkit.run.id"
NODE_ID = "flowkit.node.id"
"""The id of what is no tool, as an `each`: with `gen_ai.tool.call.id` viewers take it for a tool."""
TURN = "flowkit.turn"
ATTEMPT = "flowkit.attempt"
STATE = "flowkit.state"
EARLY = "flowkit.early"
SOURCE = "flowkit.source"
AGE_S = "flowkit.age_s"
EFFECT = "flowkit.effect"
COST_USD = "flowkit.cost_usd"
REPAIRED = "flowkit.repaired"
EDGE = "flowkit.edge"
WAITED = {kind: f"flowkit.waited.{kind}_s" for kind in ("calls", "approval", "resource", "slot")}
"""By what is waited for."""
LOOKUP_RESULT = "flowkit.result"

INVOKE_AGENT_DURATION = "gen_ai.invoke_agent.duration"
INFERENCE_CALLS = "gen_ai.invoke_agent.inference_calls"
TOOL_CALLS = "gen_ai.invoke_agent.tool_calls"
INVOKE_WORKFLOW_DURATION = "gen_ai.invoke_workflow.duration"
EXECUTE_TOOL_DURATION = "gen_ai.execute_tool.duration"
INFERENCE_DURATION = "gen_ai.client.inference.duration"
INFERENCE_FIRST_CHUNK = "gen_ai.client.inference.time_to_first_chunk"
INFERENCE_INPUT = "gen_ai.client.inference.usage.input_tokens"
INFERENCE_OUTPUT = "gen_ai.client.inference.usage.output_tokens"
COST = "flowkit.cost"
CACHE_LOOKUPS = "flowkit.cache.lookups"
APPROVALS_WAIT = "flowkit.approvals.wait"
RUNS_ACTIVE = "flowkit.runs.active"

_PROVIDERS = {
    "openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "anthropic.com": "anthropic",
    "googleapis.com": "gcp.gemini",
    "amazonaws.com": "aws.bedrock",
    "mistral.ai": "mistral_ai",
    "deepseek.com": "deepseek",
    "groq.com": "groq",
    "x.ai": "x_ai",
    "perplexity.ai": "perplexity",
}


def name_provider(source: str) -> str:
    """Name the provider of a model, from its `source`; an unknown server by its host's name.

    >>> name_provider("chat https://api.openai.com/v1 gpt-4.1"), name_provider("scripted")
    ('openai', 'scripted')
    """
    for word in source.split():
        host = urlsplit(word).hostname if "://" in word else None
        if host is not None:
            ends = [provider for end, provider in _PROVIDERS.items() if host == end or host.endswith(f".{end}")]
            return ends[0] if ends else host
    return source.split()[0] if source.strip() else "unknown"
