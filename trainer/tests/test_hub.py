"""Base models by hub name, from a server on this machine that answers as a hub does."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import onnxruntime
import pytest
import torch
from huggingface_hub import constants
from transformers import AlbertConfig, AlbertForMaskedLM, BertForMaskedLM

from fewloop_trainer.cli import main
from fewloop_trainer.encoder import load_model, load_tokenizer
from folders import ROOT, TINY_MODEL, read_json
from test_base_kinds import SMALL, bert

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "some-one/tiny.bert"


@dataclass
class Hub:
    """`files` of NAME, at `COMMIT`, which `main` and `v1` are. `asked`: the paths of all requests."""

    files: dict[str, bytes]
    endpoint: str = ""
    named: dict[str, str] = field(default_factory=dict)
    """SHA-256 that is told in place of a file's own."""
    asked: list[str] = field(default_factory=list)
    refusal: str | None = None
    """X-Error-Code of all answers."""

    def digest(self, file: str) -> str:
        return self.named.get(file, hashlib.sha256(self.files[file]).hexdigest())

    def lfs(self, file: str, key: str) -> dict:
        large = {"size": len(self.files[file]), key: self.digest(file), "pointerSize": 134}
        return {"lfs": large} if file.endswith((".safetensors", ".bin")) else {}


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments):
        self.hub = hub
        super().__init__(*arguments)

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(path)
        about, content = f"/api/models/{NAME}/", f"/{NAME}/resolve/{COMMIT}/"
        if self.hub.refusal is not None:
            self.answer(403 if self.hub.refusal == "GatedRepo" else 404, b"", {"X-Error-Code": self.hub.refusal})
        elif path in {f"{about}revision/{name}" for name in ("main", "v1", COMMIT)}:
            siblings = [
                {"rfilename": f, "size": len(c), "blobId": "b" * 40} | self.hub.lfs(f, "sha256")
                for f, c in self.hub.files.items()
            ]
            self.answer_json({"id": NAME, "sha": COMMIT, "siblings": siblings})
        elif path == f"{about}tree/{COMMIT}":
            files = [
                {"type": "file", "path": f, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} | self.hub.lfs(f, "oid")
                for f, c in self.hub.files.items()
            ]
            self.answer_json(files)
        elif path.startswith(content) and (file := path.removeprefix(content)) in self.hub.files:
            self.answer(200, self.hub.files[file], {"X-Repo-Commit": COMMIT, "ETag": f'"{self.hub.digest(file)}"'})
        else:
            code = "RevisionNotFound" if path.startswith(about) else "RepoNotFound"
            self.answer(404, b"", {"X-Error-Code": code})

    do_HEAD = do_GET

    def answer_json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_) -> None:
        pass


def files_of(model, folder: Path) -> dict[str, bytes]:
    """As an old repository has them: the vocabulary alone, pickled weights and code beside the safetensors."""
    model.save_pretrained(folder)
    vocabulary = load_tokenizer(TINY_MODEL).get_vocab()
    words = sorted(vocabulary, key=vocabulary.__getitem__)
    described = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "modeling.Own"}}
    return {
        "config.json": json.dumps(described).encode(),
        "model.safetensors": (folder / "model.safetensors").read_bytes(),
        "vocab.txt": "".join(f"{word}\n" for word in words).encode(),
        "tokenizer_config.json": json.dumps({"do_lower_case": False}).encode(),
        "README.md": b"---\nlicense: mit\n---\n",
        "pytorch_model.bin": pickle.dumps({}),
        "modeling.py": b"raise SystemExit('code of the repository')",
        "onnx/model.safetensors": b"another",
    }


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    hub = Hub(files_of(bert(), tmp_path / "published"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Answers, hub))
    Thread(target=server.serve_forever, daemon=True).start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    # What HF_ENDPOINT and HF_HOME set when the library is imported.
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield hub
    server.shutdown()
    server.server_close()


def test_becomes_a_base_model_with_a_graph_that_serves(hub, tmp_path):
    out = tmp_path / "fetched"
    environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": ""}
    command = [sys.executable, "-m", "fewloop_trainer", "fetch-base", f"{NAME}@v1", str(out)]
    done = subprocess.run(command, cwd=ROOT / "trainer", env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{NAME}@{COMMIT}, ONNX Runtime within" in done.stderr
    assert read_json(out / "source.json") == {
        "name": NAME,
        "revision": COMMIT,
        "sha256": {"model.safetensors": hashlib.sha256(hub.files["model.safetensors"]).hexdigest()},
    }
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "config.json",
        "golden.json",
        "model.onnx",
        "model.safetensors",
        "source.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert not [path for path in hub.asked if path.endswith((".bin", ".py", "onnx/model.safetensors"))]
    assert list((tmp_path / "home/hub").glob("models--*"))
    for name, tensor in bert().state_dict().items():
        assert torch.equal(load_model(out, needs_head=True).state_dict()[name], tensor.half().float()), name
    for text in ("这家酒店ABC很好！", "物流 太慢，😀"):
        assert load_tokenizer(out).encode(text).ids == load_tokenizer(TINY_MODEL).encode(text).ids
    assert "label_tokens" in {i.name for i in onnxruntime.InferenceSession(out / "model.onnx").get_inputs()}


def test_the_newest_of_an_albert_with_a_tokenizer_of_its_own(hub, tmp_path):
    torch.manual_seed(5)
    hub.files = files_of(AlbertForMaskedLM(AlbertConfig(**SMALL, embedding_size=16)), tmp_path / "albert")
    del hub.files["vocab.txt"]
    hub.files["tokenizer.json"] = (TINY_MODEL / "tokenizer.json").read_bytes()
    assert main(["fetch-base", NAME, str(tmp_path / "fetched")]) == 0
    assert read_json(tmp_path / "fetched/config.json")["model_type"] == "albert"
    assert read_json(tmp_path / "fetched/golden.json")["rows"]


class TestRefused:
    def of(self, tmp_path: Path, capsys, name: str = NAME) -> str:
        assert main(["fetch-base", name, str(tmp_path / "fetched")]) == 2
        assert not (tmp_path / "fetched").exists()
        told = capsys.readouterr().err
        assert f"fewloop_trainer fetch-base: {name}: " in told
        return told

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("some-one/else", "has no such model"),
            (f"{NAME}@v2", "has no such revision"),
            ("a b/c", "is no name of a model on a hub"),
        ],
    )
    def test_what_the_hub_does_not_have(self, hub, tmp_path, capsys, name, message):
        if name == "some-one/else":
            hub.refusal = "RepoNotFound"
        assert message in self.of(tmp_path, capsys, name)

    def test_what_is_to_be_agreed_to_first(self, hub, tmp_path, capsys):
        hub.refusal = "GatedRepo"
        assert "set HF_TOKEN" in self.of(tmp_path, capsys)

    def test_where_there_is_no_network(self, hub, tmp_path, capsys, monkeypatch):
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
        assert "http://127.0.0.1:9 cannot be reached" in self.of(tmp_path, capsys)

    def test_pickled_weights(self, hub, tmp_path, capsys):
        del hub.files["model.safetensors"]
        told = self.of(tmp_path, capsys)
        assert "no weights as model.safetensors (only pickled ones" in told
        assert not [path for path in hub.asked if "resolve" in path], "nothing was fetched for nothing"

    def test_weights_other_than_the_hub_names(self, hub, tmp_path, capsys):
        hub.named["model.safetensors"] = "0" * 64
        assert f"and the hub names {'0' * 64}: remove" in self.of(tmp_path, capsys)

    def test_a_folder_that_is_there(self, hub, tmp_path, capsys):
        assert main(["fetch-base", NAME, str(tmp_path)]) == 2
        assert "exists already" in capsys.readouterr().err
        assert hub.asked == []

    def test_a_model_without_a_head(self, hub, tmp_path, capsys):
        encoder = BertForMaskedLM(bert().config).bert
        encoder.save_pretrained(tmp_path / "encoder")
        hub.files |= {f: (tmp_path / "encoder" / f).read_bytes() for f in ("config.json", "model.safetensors")}
        assert main(["fetch-base", NAME, str(tmp_path / "fetched")]) == 2
        assert "has no masked-language-model head" in capsys.readouterr().err

    def test_a_model_of_another_language(self, hub, tmp_path, capsys):
        hub.files["vocab.txt"] = hub.files["vocab.txt"].replace("\n好\n".encode(), b"\nhao\n")
        assert main(["fetch-base", NAME, str(tmp_path / "fetched")]) == 2
        assert "its tokenizer does not know 好" in capsys.readouterr().err
        assert not (tmp_path / "fetched").exists()


def test_a_name_where_a_folder_belongs_names_the_command(tmp_path, capsys):
    texts = tmp_path / "texts.txt"
    texts.write_text("好")
    assert main(["pretrain", "hfl/rbt3", str(tmp_path / "out"), str(texts), "--work", str(tmp_path / "work")]) == 2
    command = f"{sys.executable} -m fewloop_trainer fetch-base"
    assert f"hfl/rbt3: no such folder; of a model on a hub `{command}" in capsys.readouterr().err
