"""The same requests to several models, side by side: response times, correct calls and answers, and cost."""

from flowkit.measure.cases import AnswerCheck, Case, CasesFile, ExpectedCall, load_cases
from flowkit.measure.measuring import Candidate, measure
from flowkit.measure.records import CaseRun, MadeCall, Measured

__all__ = [
    "AnswerCheck",
    "Candidate",
    "Case",
    "CaseRun",
    "CasesFile",
    "ExpectedCall",
    "MadeCall",
    "Measured",
    "load_cases",
    "measure",
]
