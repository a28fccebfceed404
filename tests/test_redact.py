"""No secret is written, whatever it came along with."""

import json

import pytest

from raylab import redact
from raylab.errors import UserError, first_line
from raylab.types import TrialResult
from tests import made_up

# What is not one: names of raylab's own, and words of its messages.
HARMLESS = [
    "data.tokens=1000 data.tokenizer=gpt2 token_count=4, num_tokens=7",
    "Write key=value, quoted where it has brackets; KEY=choice(a,b)",
    "KeyError: 'key'",
    "user@host:/path a@b.c https://host/x?layer=fc1",
    "/data/sk-learn-2024-models-of-ours and sk-learn-models-of-the-others",
    "monkey=3 hotkey: 2, my password is fine",
]
SECRET = {
    "got swordfish-1 here": "got *** here",
    "s3://AKID:hidden1@bucket/x?region=eu": "s3://***@bucket/x?region=eu",
    "GET https://h/x?X-Amz-Signature=hidden1&b=1": "GET https://h/x?X-Amz-Signature=***&b=1",
    "password=hidden1, next": "password=***, next",
    "{'api_key': 'hidden 1', 'b': 1}": "{'api_key': ***, 'b': 1}",
    "Authorization: Bearer hidden1hidden1": "Authorization: Bearer ***",
    "--hub-token hidden1 --x": "--hub-token *** --x",
    "os.environ.HF_TOKEN=hidden1": "os.environ.HF_TOKEN=***",
    "aws_secret_access_key = hidden1": "aws_secret_access_key = ***",
    "(clientSecret=hidden1)": "(clientSecret=***)",
    "mine is hf_" + "hidden1" * 4: "mine is ***",
    "mine is sk-" + "hidden1" * 4: "mine is ***",
    "-----BEGIN RSA PRIVATE KEY-----\nhidden1\n-----END RSA PRIVATE KEY-----": "***",
}


@pytest.fixture(autouse=True)
def planted(monkeypatch):
    monkeypatch.setenv("OUR_HUB_TOKEN", "swordfish-1")
    monkeypatch.setenv("OUR_TOKENIZER", "harmless")
    monkeypatch.setenv("SOME_PASSWORD", "ab")  # too short to be looked for: it would be found in every text


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text):
    assert redact.text(text) == text


@pytest.mark.parametrize(("text", "shown"), SECRET.items())
def test_a_secret_is_hidden(text, shown):
    assert redact.text(text) == shown
    assert "hidden1" not in json.dumps(redact.plain({"a": [text], "b": {"c": text}}))


def test_a_config_is_read_by_its_names():
    config = {"data": {"token": "a", "tokens": 9, "key": 1, "password": None, "apiKey": ["b"]}, "models": 3}
    hidden = {"data": {"token": "***", "tokens": 9, "key": "***", "password": None, "apiKey": ["***"]}, "models": 3}
    assert redact.plain(config) == hidden


@pytest.mark.parametrize("text", ["key " + "a." * 20000, "--" * 20000 + "key", "token=" * 10000, "https://" * 10000])
def test_no_text_takes_for_ever(text):
    redact.text(text)  # pytest's timeout: a pattern that goes back over and over would need minutes


def test_errors_and_rows_have_none():
    assert "swordfish" not in str(UserError("no answer to swordfish-1"))
    assert "swordfish" not in first_line(RuntimeError("no answer to swordfish-1"))
    result = TrialResult(made_up.trials(1)[0], "failed", {}, error="Traceback: swordfish-1 is wrong")
    assert result.error == "Traceback: *** is wrong"
