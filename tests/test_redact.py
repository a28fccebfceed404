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
    "basic arithmetic, basic understanding; a bearer instrument",
    "model.settings.pad_token_id=50256 --eos_token_id 2 {'bos_token_id': 1, \"mask_token_id\": null}",
    "model.settings.eos_token=<|endoftext|> and 'pad_token': '[PAD]'",
    "in the forward pass: nan; forward_pass=3, compass: north, low_pass=2, PASSED: 3, bypass=true",
    "the key lies in PLACE/key.json",
]
SECRET = {
    "got swordfish-1 here": "got *** here",
    "s3://AKID:hidden1@bucket/x?region=eu": "s3://***@bucket/x?region=eu",
    "GET https://h/x?X-Amz-Signature=hidden1&b=1": "GET https://h/x?X-Amz-Signature=***&b=1",
    "password=hidden1, next": "password=***, next",
    "{'api_key': 'hidden 1', 'b': 1}": "{'api_key': ***, 'b': 1}",
    "Authorization: Bearer hidden1hidden1": "Authorization: Bearer ***",
    "{'Authorization': 'Basic hidden1='}": "{'Authorization': 'Basic ***'}",
    "('authorization', 'Bearer hidden1')": "('authorization', 'Bearer ***')",
    "PGPASSWORD=hidden1 psql": "PGPASSWORD=*** psql",
    "DB_PASS: hidden1, db-pass=hidden1 smtpPass=hidden1": "DB_PASS: ***, db-pass=*** smtpPass=***",
    "--rootpasswd hidden1": "--rootpasswd ***",
    "access_key_id=hidden1": "access_key_id=***",
    "EOS_TOKEN=hidden1": "EOS_TOKEN=***",
    "got /hidden1/of+40/characters here": "got *** here",
    "got swordfish-2 and swordfish-3 here": "got *** and *** here",
    "--hub-token hidden1 --x": "--hub-token *** --x",
    "os.environ.HF_TOKEN=hidden1": "os.environ.HF_TOKEN=***",
    "aws_secret_access_key = hidden1": "aws_secret_access_key = ***",
    "(clientSecret=hidden1)": "(clientSecret=***)",
    "mine is hf_" + "hidden1" * 4: "mine is ***",
    "mine is sk-" + "hidden1" * 4: "mine is ***",
    "-----BEGIN RSA PRIVATE KEY-----\nhidden1\n-----END RSA PRIVATE KEY-----": "***",
}


@pytest.fixture(autouse=True)
def planted(monkeypatch, tmp_path):
    monkeypatch.setenv("OUR_HUB_TOKEN", "swordfish-1")
    monkeypatch.setenv("PGPASSWORD", "swordfish-2")
    monkeypatch.setenv("DB_PASS", "swordfish-3")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "/hidden1/of+40/characters")
    (tmp_path / "key.json").touch()
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    monkeypatch.setenv("PWD", "/a/folder/that/is/gone")
    monkeypatch.setenv("OUR_TOKENIZER", "harmless")
    monkeypatch.setenv("SOME_PASSWORD", "ab")  # too short to be looked for: it would be found in every text


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_stays(text, tmp_path):
    text = text.replace("PLACE", f"{tmp_path} and /a/folder/that/is/gone, where PWD was")
    assert redact.text(text) == text


@pytest.mark.parametrize(("text", "shown"), SECRET.items())
def test_a_secret_is_hidden(text, shown):
    assert redact.text(text) == shown
    assert "hidden1" not in json.dumps(redact.plain({"a": [text], "b": {"c": text}}))


def test_a_config_is_read_by_its_names():
    config = {"data": {"token": "a", "tokens": 9, "key": 1, "password": None, "apiKey": ["b"]}, "models": 3}
    hidden = {"data": {"token": "***", "tokens": 9, "key": "***", "password": None, "apiKey": ["***"]}, "models": 3}
    assert redact.plain(config) == hidden
    tokenizer = {"pad_token_id": 0, "eos_token_id": [1, 2], "eos_token": "<|endoftext|>", "forward_pass": 2}
    assert redact.plain({"settings": tokenizer}) == {"settings": tokenizer}
    secret = {"PGPASSWORD": "a", "pass": "b", "db_pass": "c", "access_key_id": "d"}
    assert redact.plain(secret) == dict.fromkeys(secret, "***")


@pytest.mark.parametrize(
    "text", ["key " + "a." * 20000, "--" * 20000 + "key", "token=" * 10000, "https://" * 10000, "pass_" * 10000]
)
def test_no_text_takes_for_ever(text):
    redact.text(text)  # pytest's timeout: a pattern that goes back over and over would need minutes


def test_errors_and_rows_have_none():
    assert "swordfish" not in str(UserError("no answer to swordfish-1"))
    assert "swordfish" not in first_line(RuntimeError("no answer to swordfish-1"))
    result = TrialResult(made_up.trials(1)[0], "failed", {}, error="Traceback: swordfish-1 is wrong")
    assert result.error == "Traceback: *** is wrong"
