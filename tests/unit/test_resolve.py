from types import SimpleNamespace
from typing import Any

import pytest

from o1_reason import MCTS, BeamSearch, ConfigurationError
from o1_reason.resolve import adapters, read_name, resolve_policy, resolve_strategy, resolve_verifier
from o1_reason.strategies import STRATEGIES
from o1_reason.testing import ScriptedPolicy, ScriptedVerifier


def test_objects_pass_through():
    policy, verifier, strategy = ScriptedPolicy({}), ScriptedVerifier({}), BeamSearch()
    assert resolve_policy(policy) is policy
    assert resolve_verifier(verifier) is verifier
    assert resolve_strategy(strategy) is strategy
    assert resolve_verifier(None) is None


def test_a_name_finds_its_adapter_and_hands_on_the_rest(installed):
    installed(fake=SimpleNamespace(policy=lambda model: ("policy", model), verifier=lambda model: ("verifier", model)))
    assert resolve_policy("fake:a/b:free") == ("policy", "a/b:free")
    assert resolve_verifier("fake") == ("verifier", "")


def test_the_embedded_adapter_is_installed():
    assert "embedded" in adapters()


def test_an_unknown_adapter_is_refused_with_the_known_ones(installed):
    installed(beta=object(), alpha=object())
    with pytest.raises(ConfigurationError, match="no adapter 'gamma' is installed; there are: alpha, beta"):
        resolve_policy("gamma:model")
    installed()
    with pytest.raises(ConfigurationError, match="there are: none"):
        resolve_policy("")


def test_a_broken_adapter_is_named_with_its_reason(installed):
    installed(broken=ImportError("No module named 'missing'"))
    with pytest.raises(ConfigurationError, match=r"'broken' \(package_of_broken\) does not load: No module named"):
        resolve_verifier("broken")


def test_an_adapter_without_the_role_says_so(installed):
    installed(half=SimpleNamespace(policy=lambda model: model))
    with pytest.raises(ConfigurationError, match="'half' has no verifier"):
        resolve_verifier("half")


@pytest.mark.parametrize(
    ("resolve", "method"), [(resolve_policy, "propose"), (resolve_verifier, "score"), (resolve_strategy, "select")]
)
def test_what_fills_no_role_is_refused_by_what_it_lacks(resolve, method):
    for given in (7, object(), {}, b"embedded"):
        with pytest.raises(ConfigurationError, match=method):
            resolve(given)


@pytest.mark.parametrize(("resolve", "given"), [(resolve_policy, ScriptedPolicy), (resolve_verifier, ScriptedVerifier)])
def test_a_class_in_place_of_an_object_is_told_how_to_fix_it(resolve, given):
    with pytest.raises(ConfigurationError, match=rf"give an object: {given.__name__}\(\)"):
        resolve(given)


def test_a_strategy_class_in_place_of_an_object_is_refused():
    with pytest.raises(ConfigurationError, match="strategy must be"):
        resolve_strategy(MCTS)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_has_its_name(name):
    assert type(resolve_strategy(name)) is STRATEGIES[name]


def test_an_unknown_strategy_is_refused_with_the_known_ones():
    with pytest.raises(ConfigurationError, match=r"unknown strategy 'bfs'; there are: cot, .*beam.*mcts"):
        resolve_strategy("bfs")


@pytest.mark.parametrize("name", ["embedded:large", "embedded:prm+rules"])
def test_the_embedded_policy_has_no_variants(name):
    with pytest.raises(ConfigurationError, match=f'there is no "{name}"'.replace("+", r"\+")):
        resolve_policy(name)


@pytest.mark.parametrize("name", ["embedded", "embedded:prm", "embedded:rules", "embedded:prm+rules"])
def test_the_embedded_verifiers_have_names_and_identities(name):
    assert resolve_verifier(name).identity


def test_an_unknown_embedded_verifier_is_refused():
    with pytest.raises(ConfigurationError, match="no embedded verifier 'x'"):
        resolve_verifier("embedded:x")


# Settings in a name.


def test_a_name_carries_settings():
    assert read_name("a/b:c?x=1&y=true&z=some%20text&w=[1, 2]") == (
        "a/b:c", {"x": 1, "y": True, "z": "some text", "w": [1, 2]},
    )  # fmt: skip
    assert read_name("m") == ("m", {})
    with pytest.raises(ConfigurationError, match="NAME=VALUE"):
        read_name("m?x")


def test_an_openai_name_becomes_a_policy_with_all_its_settings(monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    name = (
        "openai:org/model:7b?base_url=http://127.0.0.1:9/v1&api_key_env=MY_KEY&prefix=continue&step_tokens=99"
        '&temperature=0.3&attempts=2&top_p=0.5&reasoning_effort=low&price=1/2/0.5&without=seed&extra={"user":"me"}'
    )
    policy: Any = resolve_policy(name)
    chat = policy.chat
    assert (chat.model, chat.prefix, chat.endpoint.base_url) == ("org/model:7b", "continue", "http://127.0.0.1:9/v1")
    assert chat.extra == {"top_p": 0.5, "reasoning_effort": "low", "user": "me"}
    assert (policy.step_tokens, policy.temperature, chat.endpoint.attempts) == (99, 0.3, 2)
    assert (chat.price.prompt, chat.price.completion, chat.price.cached) == (1, 2, 0.5)
    assert "secret" not in policy.identity


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        ("critic", "Critic"), ("vote", "VoteCritic"), ("pairwise", "PairwiseCritic"), ("generative", "GenerativePRM"),
        ("decisions", "Decisions"),
    ],
)  # fmt: skip
def test_an_openai_name_becomes_a_verifier_of_each_kind(role, kind):
    verifier = resolve_verifier(f"openai:m?as={role}&base_url=http://127.0.0.1:9/v1")
    assert type(verifier).__name__ == kind


def test_a_known_reward_model_is_read_by_its_name():
    verifier: Any = resolve_verifier("openai:Qwen/Qwen2.5-Math-PRM-7B?as=prm&base_url=http://127.0.0.1:9/v1")
    assert "qwen" in verifier.identity.lower()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("openai:", "which model"),
        ("openai:m?temprature=1", "temprature.*settings: .*base_url.*temperature.*top_p"),
        ("openai:m?extract=x", "no setting extract"),
        ("openai:m?api_key_env=NOT_SET_ANYWHERE", "NOT_SET_ANYWHERE"),
        ("openai:m?price=cheap", "price"),
    ],
)
def test_settings_that_nobody_has_are_refused_with_those_there_are(name, message, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    with pytest.raises(ConfigurationError, match=message):
        resolve_policy(name)
    if "price" not in name:
        with pytest.raises(ConfigurationError):
            resolve_verifier(name + ("&" if "?" in name else "?") + "as=nothing")
