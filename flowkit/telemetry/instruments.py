"""Metrics over all runs: durations, tokens, cost; by agent, model, tool and outcome, never by run or user."""

from collections.abc import Mapping

from opentelemetry.metrics import Meter

from flowkit.telemetry import names

Labels = Mapping[str, str]


class Metrics:
    """The instruments of one meter."""

    def __init__(self, meter: Meter) -> None:
        histogram = meter.create_histogram
        self.agent_duration = histogram(names.INVOKE_AGENT_DURATION, "s")
        self.inference_calls = histogram(names.INFERENCE_CALLS, "{call}")
        self.tool_calls = histogram(names.TOOL_CALLS, "{call}")
        self.workflow_duration = histogram(names.INVOKE_WORKFLOW_DURATION, "s")
        self.tool_duration = histogram(names.EXECUTE_TOOL_DURATION, "s")
        self.inference_duration = histogram(names.INFERENCE_DURATION, "s")
        self.first_chunk = histogram(names.INFERENCE_FIRST_CHUNK, "s")
        self.input_tokens = meter.create_counter(names.INFERENCE_INPUT, "{token}")
        self.output_tokens = meter.create_counter(names.INFERENCE_OUTPUT, "{token}")
        self.cost = meter.create_counter(names.COST, "USD")
        self.lookups = meter.create_counter(names.CACHE_LOOKUPS, "{lookup}")
        self.approvals_wait = histogram(names.APPROVALS_WAIT, "s")
        self.active = meter.create_up_down_counter(names.RUNS_ACTIVE, "{run}")
