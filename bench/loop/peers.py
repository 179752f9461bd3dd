"""The loop's peers on the very labels that each configuration had: TF-IDF with logistic regression, and SetFit.

    python bench/loop/peers.py OUT --base models/base-zh

Reads OUT/<configuration>/state.json and peers-data.json (both written by loop.ts), writes peers.json beside them; what
is already there is not computed again.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def tfidf(train, held_out):
    import jieba
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    jieba.setLogLevel(60)
    model = make_pipeline(
        TfidfVectorizer(tokenizer=jieba.lcut, token_pattern=None, ngram_range=(1, 2)),
        LogisticRegression(C=10, max_iter=1000),
    )
    model.fit([row["text"] for row in train], [row["label"] for row in train])
    return list(model.predict(held_out))


def setfit(train, held_out, base):
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer
    from setfit import SetFitModel, Trainer, TrainingArguments
    from sklearn.linear_model import LogisticRegression

    encoder = Transformer(str(base), max_seq_length=128)
    body = SentenceTransformer(modules=[encoder, Pooling(encoder.get_word_embedding_dimension(), "cls")], device="cpu")
    body.float()  # the weights lie in fp16, in which a processor trains a hundred times slower
    labels = sorted({row["label"] for row in train})
    model = SetFitModel(model_body=body, model_head=LogisticRegression(max_iter=1000), labels=labels)
    data = Dataset.from_dict(
        {"text": [row["text"] for row in train], "label": [labels.index(row["label"]) for row in train]}
    )
    # SetFit's own defaults, but for the number of pairs: its oversampling takes hours at 116 labels on two cores.
    arguments = TrainingArguments(batch_size=16, num_epochs=1, max_steps=150, report_to="none", save_strategy="no")
    Trainer(model=model, args=arguments, train_dataset=data).train()
    return [str(label) for label in model.predict(held_out, batch_size=64, show_progress_bar=False)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--base", type=Path, default=Path("models/base-zh"))
    options = parser.parse_args()
    folders = [file.parent for file in sorted(options.out.glob("*/state.json"))]
    # The cheap one first, everywhere; the largest sets first.
    for name, fit in (("tfidf", tfidf), ("setfit", lambda rows, texts: setfit(rows, texts, options.base))):
        for folder in folders:
            compare(folder, name, fit)


def compare(folder, name, fit):
    state = json.loads((folder / "state.json").read_text())
    data = json.loads((folder / "peers-data.json").read_text())
    held_out, wanted = [row["text"] for row in data["heldOut"]], [row["label"] for row in data["heldOut"]]
    file = folder / "peers.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for point in reversed(state["points"]):
        train = state["labelled"][: point["labels"]]
        key = f"{name}-{point['labels']}"
        if key in results or not train:
            continue
        started = time.monotonic()
        predicted = fit(train, held_out)
        hits = "".join("1" if a == b else "0" for a, b in zip(predicted, wanted, strict=True))
        results[key] = {"hits": hits, "seconds": time.monotonic() - started}
        print(f"{folder.name} {key}: {hits.count('1') / len(hits):.3f}", flush=True)
        file.with_suffix(".partial").write_text(json.dumps(results))
        file.with_suffix(".partial").replace(file)


if __name__ == "__main__":
    main()
