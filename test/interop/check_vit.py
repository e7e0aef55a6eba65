"""Loads a vision transformer with Python's transformers and compares keys, labels and logits. usage: check_vit.py FOLDER EXPECTED_JSON"""

import json
import pathlib
import sys

import torch
from transformers import AutoModelForImageClassification

expected = json.loads(pathlib.Path(sys.argv[2]).read_text())
model, info = AutoModelForImageClassification.from_pretrained(sys.argv[1], output_loading_info=True)
problems = [f"{k}: {v}" for k, v in info.items() if v]
if [model.config.id2label[i] for i in range(len(expected["labels"]))] != expected["labels"]:
    problems.append(f"labels differ: {model.config.id2label}")
with torch.no_grad():
    logits = model.eval()(pixel_values=torch.tensor(expected["pixels"]).reshape(expected["shape"])).logits.flatten()
worst = (logits - torch.tensor(expected["logits"])).abs().max().item()
if not worst < 1e-4:
    problems.append(f"logits differ by {worst}")
print(f"{expected['what']}: {type(model).__name__}, largest difference of a logit {worst:.1e}; {'; '.join(problems) or 'keys and labels equal'}")
sys.exit(1 if problems else 0)
