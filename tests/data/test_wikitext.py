"""WikiText-103 as it lies, against datasets and transformers' own reading."""

import json
from types import SimpleNamespace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import transformers

from raylab.data import hub, tokens, wikitext
from raylab.errors import UserError

ROWS = [  # two rows look like titles and are none
    "", " = First = \n", "", " Some words of the first . \n", " = = Section = = \n", "", " = a = \n", " c \n",
    " = b = \n", "", " = Second one = \n", "", " More words . \n",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data" / "wikitext" / "wikitext-103-v1"


@pytest.fixture(scope="module")
def tokenizer(shared):
    return str(shared / "data" / "gpt2-tokenizer")


@pytest.fixture(scope="module")
def reader(tokenizer):
    return transformers.AutoTokenizer.from_pretrained(tokenizer)


@pytest.fixture(scope="module")
def whole(folder, reader):
    """The tokens of the split "test", as transformers gives them: seconds, once."""
    return reader("\n\n".join(wikitext.rows(folder, config="", split="test")), verbose=False)["input_ids"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small(tmp_path):
    """A folder with a few rows as the split "test"."""
    pq.write_table(pa.table({"text": ROWS}), tmp_path / "test-00000-of-00001.parquet")
    return tmp_path


def test_the_test_split_as_the_hugging_face_guide_reads_it(folder, tokenizer, whole, cache, tmp_path):
    path = str(folder / "test-00000-of-00001.parquet")
    theirs = datasets.Dataset.from_parquet(path, cache_dir=str(tmp_path))["text"]
    assert wikitext.rows(folder, config="", split="test") == list(theirs)
    network = SimpleNamespace(tokenizer=tokenizer, download=False)
    data = wikitext.load(network, folder, context=1024, cache=cache)
    ids = whole  # of the same rows
    assert len(ids) == 286657
    flat = data.x.reshape(-1)
    assert flat[:286657].tolist() == ids and not flat[286657:].any()
    assert data.x.shape == (280, 1024) and (data.y != -100).sum() == 286657 - 280
    assert data.name == "wikitext-103 test" and data.task == "text"
    assert data.words == round(241211 * (286657 - 280) / 286657) and len("\n\n".join(theirs).split()) == 241211
    assert data.protocol == {
        "context": 1024, "stride": 1024, "joining": "blank_lines", "normaliser": "token", "tokenizer": "gpt2-tokenizer",
        "words": data.words, "subset": None,
    }  # fmt: skip


def test_every_argument_of_the_protocol_changes_the_revision(small, tokenizer, cache):
    plain = {"context": 8, "stride": 8, "joining": "raw", "normaliser": "token", "tokens": None}
    other = {"context": 9, "stride": 4, "joining": "blank_lines", "normaliser": "word", "tokens": 20}
    settings = [plain, *({**plain, key: value} for key, value in other.items())]
    found = [wikitext.load(None, small, tokenizer=tokenizer, cache=cache, **one).revision for one in settings]
    assert len(set(found)) == len(settings)
    assert found[0] == wikitext.load(None, small, tokenizer=tokenizer, cache=cache, **plain).revision


def test_there_are_sixty_articles_in_either_split(folder):
    for split in ("test", "validation"):
        rows = wikitext.rows(folder, config="", split=split)
        articles = wikitext.joined(rows, "documents")
        assert len(articles) == 60 and "".join(articles) == "".join(rows)  # as Merity et al. 2016 say, table 1


def test_joinings():
    assert wikitext.joined(ROWS, "raw") == ["".join(ROWS)]
    assert wikitext.joined(ROWS, "blank_lines") == ["\n\n".join(ROWS)]
    first, second = wikitext.joined(ROWS, "documents")
    assert first.startswith(" = First = \n Some") and first.endswith(" = b = \n")
    assert second == " = Second one = \n More words . \n"


def test_words_and_the_first_tokens(folder, tokenizer, reader, whole, cache):
    data = wikitext.load(
        None, folder, tokenizer=tokenizer, tokens=5000, context=1000, stride=500, cache=cache, normaliser="word"
    )
    ids = whole[:5000]
    assert sorted(data.y[data.y != -100]) == sorted(ids[1:])
    assert data.words == round(len(reader.decode(ids).split()) * 4999 / 5000)
    assert data.protocol["subset"] == "first 5000 tokens" and data.protocol["normaliser"] == "word"


def test_documents_are_tokenised_by_themselves(small, tokenizer, reader, cache):
    found = tokens.tokenise(wikitext.joined(ROWS, "documents"), tokenizer, cache=cache)
    theirs = [reader(article)["input_ids"] for article in wikitext.joined(ROWS, "documents")]
    assert found.lengths == tuple(map(len, theirs)) and found.ids.tolist() == [token for ids in theirs for token in ids]
    cut = tokens.tokenise(wikitext.joined(ROWS, "documents"), tokenizer, limit=len(theirs[0]) + 2, cache=cache)
    assert cut.lengths == (len(theirs[0]), 2) and cut.ids.tolist() == found.ids[: len(theirs[0]) + 2].tolist()
    data = wikitext.load(None, small, tokenizer=tokenizer, joining="documents", context=50, cache=cache)
    assert [row[row > 0].tolist() for row in data.x] == theirs
    assert data.words == round(len("".join(ROWS).split()) * (found.ids.size - 2) / found.ids.size)


def test_a_text_file_is_read_as_its_rows_are(small, tokenizer, cache):
    path = small / "wiki.test.tokens.txt"
    path.write_text("".join(row or " \n" for row in ROWS))  # as the authors' archive has blank lines
    for joining in ("blank_lines", "documents"):
        files = [wikitext.load(None, root, tokenizer=tokenizer, joining=joining, context=8, cache=cache) for root in
                 (small, small / "test-00000-of-00001.parquet", path)]  # fmt: skip
        assert files[0].revision == files[1].revision
        assert (files[0].revision == files[2].revision) == (joining == "blank_lines")
    assert wikitext.joined(wikitext.rows(path, config="", split="test"), "raw") == [path.read_text()]


def test_what_is_kept_is_not_tokenised_again(small, tokenizer, tmp_path, monkeypatch):
    made = []
    original = tokens._reader
    monkeypatch.setattr(tokens, "_reader", lambda folder: made.append(1) or original(folder))
    load = lambda **more: wikitext.load(None, small, tokenizer=tokenizer, context=8, cache=tmp_path / "c", **more)  # noqa: E731
    first, again = load(), load(stride=8)
    assert len(made) == 1 and first.revision == again.revision
    np.testing.assert_array_equal(first.x, again.x)
    load(joining="raw")
    assert len(made) == 2
    for path in (tmp_path / "c").iterdir():
        path.write_bytes(path.read_bytes()[:-5])
    np.testing.assert_array_equal(load().x, first.x)
    assert len(made) == 3


def test_another_tokenizer_is_another_stream(small, reader, tmp_path):
    reader.save_pretrained(tmp_path / "mine")
    options = {"tokenizer": tmp_path / "mine", "context": 8, "cache": tmp_path / "c"}
    first = wikitext.load(None, small, **options)
    file = tmp_path / "mine" / "tokenizer.json"
    content = json.loads(file.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["Ġwords"], vocabulary["Ġmore"] = vocabulary["Ġmore"], vocabulary["Ġwords"]
    file.write_text(json.dumps(content))
    changed = wikitext.load(None, small, **options)
    assert changed.revision != first.revision and changed.protocol["tokenizer"] == "mine"
    file.write_text("{}")
    says("holds no tokenizer that transformers can read", None, small, **options)


def says(text, *args, **options):
    with pytest.raises(UserError) as error:
        wikitext.load(*args, **options)
    assert text in str(error.value) and "\n" not in str(error.value)


def test_bad_input_is_one_line(small, tokenizer, cache, tmp_path):
    options = {"tokenizer": tokenizer, "cache": cache}
    network = SimpleNamespace(tokenizer=None)
    says("give data.tokenizer=FOLDER", network, small)
    says("There is no tokenizer folder", network, small, tokenizer="/nowhere/at/all")
    says("holds no tokenizer", network, small, tokenizer=str(small))
    says(
        "has no parquet file of the split 'train': give data.split=test, which it has.",
        network,
        small,
        split="train",
        **options,
    )
    for config in ("wikitext-103-v1", "other"):
        said = "give data.split=test, which" if config != "other" else "give data.root=FOLDER"
        says(said, network, small.parent, config=small.name if config != "other" else config, split="train", **options)
    says("There is no folder or file of text", network, tmp_path / "nowhere", **options)
    says("data.joining=lines is not known", network, small, joining="lines", **options)
    says("data.tokens=0", network, small, tokens=0, **options)
    says("data.tokens=1000 is more than the text's", network, small, tokens=1000, **options)
    says("data.context=1024 is more than the text's", network, small, **options)
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "train-00000-of-00001.parquet")
    says("has no column 'text', but words", network, tmp_path, split="train", **options)
    (tmp_path / "latin.txt").write_bytes("Dürenstein".encode("latin-1"))
    says("cannot be read as UTF-8", network, tmp_path / "latin.txt", **options)
    (tmp_path / "plain.txt").write_text("No titles here.\n")
    says("no titles as WikiText's", network, tmp_path / "plain.txt", joining="documents", **options)
    (tmp_path / "plain.txt").write_text("\n \n")
    says("The text is empty", network, tmp_path / "plain.txt", **options)
    whole = (small / "test-00000-of-00001.parquet").read_bytes()
    (small / "test-00000-of-00001.parquet").write_bytes(whole[:-9])
    says("is no whole parquet file", network, small, **options)


def test_a_protocol_is_checked_before_a_text_is_read(tmp_path):
    nowhere, network = tmp_path / "nowhere", SimpleNamespace(tokenizer="gpt2", context=1024, name="gpt2")
    says("longer than the 1024 that gpt2 has positions for: give data.context=1024", network, nowhere, context=2048)
    says("data.stride=20 must be between", network, nowhere, context=10, stride=20)
    says("data.normaliser=letter", network, nowhere, normaliser="letter")
    says("There is no tokenizer", SimpleNamespace(tokenizer=None), nowhere)
    says("There is no folder or file of text", network, nowhere, context=1024)


def test_a_tokenizer_that_is_not_at_hand(small, tmp_path, monkeypatch):
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def missing(*args, **options):
        raise LocalEntryNotFoundError("Got: ConnectError\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", missing)
    gpt2 = SimpleNamespace(tokenizer="openai-community/gpt2", download=False)
    says("openai-community/gpt2 is not in the local cache", gpt2, small)
    gpt2.download = True
    says("openai-community/gpt2 could not be downloaded", gpt2, small)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **options: str(tmp_path))
    gpt2.download = False
    says("give data.tokenizer=FOLDER, or data.download=true", gpt2, small)


def test_a_hub_tokenizer_is_found_in_the_cache(small, tokenizer, cache, monkeypatch):
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda *args, **options: asked.append((args, options)) or tokenizer
    )
    network = SimpleNamespace(tokenizer="openai-community/gpt2", download=False)
    data = wikitext.load(network, small, context=8, cache=cache)
    assert data.revision == wikitext.load(None, small, tokenizer=tokenizer, context=8, cache=cache).revision
    assert data.protocol["tokenizer"] == "openai-community/gpt2"
    assert asked[0][0] == ("openai-community/gpt2",) and asked[0][1]["local_files_only"]


class Prepared(datasets.GeneratorBasedBuilder):
    """What the hub's data set is to `datasets` once it is downloaded."""

    def _info(self):
        return datasets.DatasetInfo(features=datasets.Features({"text": datasets.Value("string")}))

    def _split_generators(self, manager):
        return [datasets.SplitGenerator(name="test")]

    def _generate_examples(self):
        yield from enumerate({"text": row} for row in ROWS)


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A cache of datasets as load_dataset("Salesforce/wikitext", "wikitext-103-v1") leaves it."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    names = {"repo_id": "Salesforce/wikitext", "dataset_name": "wikitext", "config_name": "wikitext-103-v1"}
    Prepared(cache_dir=str(tmp_path / "datasets"), hash="0" * 40, **names).download_and_prepare()
    (found,) = (tmp_path / "datasets").glob("Salesforce___wikitext/wikitext-103-v1/0.0.0/*/wikitext-test.arrow")
    return found


def test_the_cache_of_datasets_is_read_without_asking_the_network(prepared, tokenizer, cache, small, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *args: pytest.fail("the network was asked"))
    data = wikitext.load(None, tokenizer=tokenizer, context=8, cache=cache)
    assert data.revision == wikitext.load(None, small, tokenizer=tokenizer, context=8, cache=cache).revision
    says("has no split 'validation'", None, split="validation", tokenizer=tokenizer, cache=cache)
    says(
        "Salesforce/wikitext (wikitext-2-v1) is not in the local cache",
        None,
        config="wikitext-2-v1",
        tokenizer=tokenizer,
    )


def test_a_download_goes_through_datasets(small, tokenizer, cache, monkeypatch):
    asked = []

    def load_dataset(*args, **options):
        asked.append((args, options))
        return {"text": ROWS}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = wikitext.load(None, tokenizer=tokenizer, context=8, cache=cache, download=True)
    assert asked == [(("Salesforce/wikitext", "wikitext-103-v1"), {"split": "test"})]
    assert data.revision == wikitext.load(None, small, tokenizer=tokenizer, context=8, cache=cache).revision

    def unreachable(*args, **options):
        raise ConnectionError("Couldn't reach the Hub\nat all")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    says("could not be downloaded (ConnectionError: Couldn't reach the Hub)", None, tokenizer=tokenizer, download=True)


def test_first_lines():
    assert hub.first_line(ValueError("a\nb")) == "ValueError: a" and hub.first_line(KeyError()) == "KeyError"
