"""Loads a folder that SlimFit saved with Python's transformers and compares keys, tokens and logits. usage: check.py FOLDER"""

import json
import pathlib
import sys

import torch
from transformers import AutoTokenizer, BertForSequenceClassification

folder = pathlib.Path(sys.argv[1])
expected = json.loads((folder / "expected.json").read_text())
model, info = BertForSequenceClassification.from_pretrained(folder, output_loading_info=True)
problems = [f"{k}: {v}" for k, v in info.items() if v]
tokenizer = AutoTokenizer.from_pretrained(folder)
batch = tokenizer(expected["texts"], padding="max_length", max_length=expected["length"], truncation=True, return_tensors="pt")
if batch["input_ids"].flatten().tolist() != expected["input_ids"]:
    problems.append("token ids differ")
if [model.config.id2label[i] for i in range(len(expected["labels"]))] != expected["labels"]:
    problems.append(f"labels differ: {model.config.id2label}")
with torch.no_grad():
    logits = model.eval()(**batch).logits.flatten()
worst = (logits - torch.tensor(expected["logits"])).abs().max().item()
if not worst < 1e-4:
    problems.append(f"logits differ by {worst}")
print(f"{len(expected['labels'])} labels: largest difference of a logit {worst:.1e}; {'; '.join(problems) or 'keys, tokens and labels equal'}")
sys.exit(1 if problems else 0)
