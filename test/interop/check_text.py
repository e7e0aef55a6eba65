"""Loads a text model that SlimFit saved with Python's transformers and compares class, keys, tokens and logits. usage: check_text.py FOLDER"""

import json
import pathlib
import sys

import torch
from transformers import AutoModelForQuestionAnswering, AutoModelForSequenceClassification, AutoTokenizer

folder = pathlib.Path(sys.argv[1])
expected = json.loads((folder / "expected.json").read_text())
answers = expected["head"] == "question answering"
model, info = (AutoModelForQuestionAnswering if answers else AutoModelForSequenceClassification).from_pretrained(folder, output_loading_info=True)
problems = [f"{k}: {v}" for k, v in info.items() if v]
if [type(model).__name__] != json.loads((folder / "config.json").read_text())["architectures"]:
    problems.append("config.json names another class")
tokenizer = AutoTokenizer.from_pretrained(folder)
rows = [tokenizer(*texts, padding="max_length", max_length=expected["length"], truncation=True) for texts in expected["texts"]]
if [i for row in rows for i in row["input_ids"]] != expected["input_ids"]:
    problems.append("token ids differ")
inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if model.config.model_type == "bert" else [])
with torch.no_grad():
    out = model.eval()(**{k: torch.tensor([row[k] for row in rows]) for k in inputs})
logits = torch.cat([out.start_logits, out.end_logits], dim=1) if answers else out.logits
worst = (logits.flatten() - torch.tensor(expected["logits"])).abs().max().item()
if not worst < 1e-4:
    problems.append(f"logits differ by {worst}")
print(f"{type(model).__name__}: largest difference of a logit {worst:.1e}; {'; '.join(problems) or 'keys and tokens equal'}")
sys.exit(1 if problems else 0)
