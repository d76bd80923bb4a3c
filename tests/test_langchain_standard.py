"""LangChain's own standard tests of chat models, over a model with a few rules; all offline."""

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from talker import Talker

from o1_reason import BeamSearch, ChatReasoner, SelfConsistency

pytest.importorskip("langchain_tests", reason="pip install langchain-tests")
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.beta_decorator.LangChainBetaWarning")


class _Reasoner:
    """What there is to know about the model under test."""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatReasoner

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"policy": Talker(), "strategy": BeamSearch(width=2, branch=2)}


class TestReasonerUnit(_Reasoner, ChatModelUnitTests):
    pass


class TestReasonerIntegration(_Reasoner, ChatModelIntegrationTests):
    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_model_override(self) -> bool:
        return False  # `model=` names another policy; the suite's questions are none for the embedded one

    @property
    def supported_usage_metadata_details(self) -> Any:
        return {"invoke": ["reasoning_output"], "stream": ["reasoning_output"]}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        model = self.chat_model_class(**self.chat_model_params)
        if not stream:
            return model.invoke("What is 3 + 4?")
        whole: Any = None
        for chunk in model.stream("What is 3 + 4?"):
            whole = chunk if whole is None else whole + chunk
        return whole


class TestVotingReasonerIntegration(TestReasonerIntegration):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"policy": Talker(), "strategy": SelfConsistency(n=3), "model_name": "reasoner/vote"}
