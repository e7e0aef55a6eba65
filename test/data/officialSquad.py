"""The published algorithms of SQuAD 2.0, for the tests to compare with: evaluate-v2.0.py, and the windows and answers of BERT's run_squad.py.

Reads one JSON document from standard input, {"evaluate": [...], "decode": [...]}, and writes the results to standard output. Plain Python 3.
"""
import collections
import json
import math
import re
import string
import sys


# evaluate-v2.0.py

def normalize_answer(s):
    def remove_articles(text):
        regex = re.compile(r'\b(a|an|the)\b', re.UNICODE)
        return re.sub(regex, ' ', text)

    def white_space_fix(text):
        return ' '.join(text.split())

    def remove_punc(text):
        exclude = set(string.punctuation)
        return ''.join(ch for ch in text if ch not in exclude)

    def lower(text):
        return text.lower()

    return white_space_fix(remove_articles(remove_punc(lower(s))))


def get_tokens(s):
    if not s:
        return []
    return normalize_answer(s).split()


def compute_exact(a_gold, a_pred):
    return int(normalize_answer(a_gold) == normalize_answer(a_pred))


def compute_f1(a_gold, a_pred):
    gold_toks = get_tokens(a_gold)
    pred_toks = get_tokens(a_pred)
    common = collections.Counter(gold_toks) & collections.Counter(pred_toks)
    num_same = sum(common.values())
    if len(gold_toks) == 0 or len(pred_toks) == 0:
        return int(gold_toks == pred_toks)
    if num_same == 0:
        return 0
    precision = 1.0 * num_same / len(pred_toks)
    recall = 1.0 * num_same / len(gold_toks)
    return (2 * precision * recall) / (precision + recall)


def get_raw_scores(qas, preds):
    exact_scores = {}
    f1_scores = {}
    for qa in qas:
        qid = qa['id']
        gold_answers = [a for a in qa['answers'] if normalize_answer(a)]
        if not gold_answers:
            gold_answers = ['']
        a_pred = preds[qid]
        exact_scores[qid] = max(compute_exact(a, a_pred) for a in gold_answers)
        f1_scores[qid] = max(compute_f1(a, a_pred) for a in gold_answers)
    return exact_scores, f1_scores


def apply_no_ans_threshold(scores, na_probs, qid_to_has_ans, na_prob_thresh):
    new_scores = {}
    for qid, s in scores.items():
        pred_na = na_probs[qid] > na_prob_thresh
        if pred_na:
            new_scores[qid] = float(not qid_to_has_ans[qid])
        else:
            new_scores[qid] = s
    return new_scores


def make_eval_dict(exact_scores, f1_scores, qid_list=None):
    if not qid_list:
        total = len(exact_scores)
        return collections.OrderedDict([
            ('exact', 100.0 * sum(exact_scores.values()) / total),
            ('f1', 100.0 * sum(f1_scores.values()) / total),
            ('total', total),
        ])
    total = len(qid_list)
    return collections.OrderedDict([
        ('exact', 100.0 * sum(exact_scores[k] for k in qid_list) / total),
        ('f1', 100.0 * sum(f1_scores[k] for k in qid_list) / total),
        ('total', total),
    ])


def merge_eval(main_eval, new_eval, prefix):
    for k in new_eval:
        main_eval['%s_%s' % (prefix, k)] = new_eval[k]


def find_best_thresh(preds, scores, na_probs, qid_to_has_ans):
    num_no_ans = sum(1 for k in qid_to_has_ans if not qid_to_has_ans[k])
    cur_score = num_no_ans
    best_score = cur_score
    best_thresh = 0.0
    qid_list = sorted(na_probs, key=lambda k: na_probs[k])
    for i, qid in enumerate(qid_list):
        if qid not in scores:
            continue
        if qid_to_has_ans[qid]:
            diff = scores[qid]
        else:
            if preds[qid]:
                diff = -1
            else:
                diff = 0
        cur_score += diff
        if cur_score > best_score:
            best_score = cur_score
            best_thresh = na_probs[qid]
    return 100.0 * best_score / len(scores), best_thresh


def evaluate(case):
    qas, preds = case['qas'], dict(case['preds'])
    with_na = case['na'] is not None
    na_probs = dict(case['na']) if with_na else {k: 0.0 for k in preds}
    qid_to_has_ans = {qa['id']: bool(qa['answers']) for qa in qas}
    has_ans_qids = [k for k, v in qid_to_has_ans.items() if v]
    no_ans_qids = [k for k, v in qid_to_has_ans.items() if not v]
    exact_raw, f1_raw = get_raw_scores(qas, preds)
    exact_thresh = apply_no_ans_threshold(exact_raw, na_probs, qid_to_has_ans, case['threshold'])
    f1_thresh = apply_no_ans_threshold(f1_raw, na_probs, qid_to_has_ans, case['threshold'])
    out_eval = make_eval_dict(exact_thresh, f1_thresh)
    if has_ans_qids:
        merge_eval(out_eval, make_eval_dict(exact_thresh, f1_thresh, qid_list=has_ans_qids), 'HasAns')
    if no_ans_qids:
        merge_eval(out_eval, make_eval_dict(exact_thresh, f1_thresh, qid_list=no_ans_qids), 'NoAns')
    if with_na:
        out_eval['best_exact'], out_eval['best_exact_thresh'] = find_best_thresh(preds, exact_raw, na_probs, qid_to_has_ans)
        out_eval['best_f1'], out_eval['best_f1_thresh'] = find_best_thresh(preds, f1_raw, na_probs, qid_to_has_ans)
    return out_eval


# run_squad.py

def doc_spans_of(tokens, max_tokens_for_doc, doc_stride):
    doc_spans = []
    start_offset = 0
    while start_offset < tokens:
        length = tokens - start_offset
        if length > max_tokens_for_doc:
            length = max_tokens_for_doc
        doc_spans.append((start_offset, length))
        if start_offset + length == tokens:
            break
        start_offset += min(length, doc_stride)
    return doc_spans


def check_is_max_context(doc_spans, cur_span_index, position):
    best_score = None
    best_span_index = None
    for (span_index, (start, length)) in enumerate(doc_spans):
        end = start + length - 1
        if position < start:
            continue
        if position > end:
            continue
        num_left_context = position - start
        num_right_context = end - position
        score = min(num_left_context, num_right_context) + 0.01 * length
        if best_score is None or score > best_score:
            best_score = score
            best_span_index = span_index
    return cur_span_index == best_span_index


def get_best_indexes(logits, n_best_size):
    index_and_score = sorted(enumerate(logits), key=lambda x: x[1], reverse=True)
    best_indexes = []
    for i in range(len(index_and_score)):
        if i >= n_best_size:
            break
        best_indexes.append(index_and_score[i][0])
    return best_indexes


def compute_softmax(scores):
    max_score = max(scores)
    exp_scores = [math.exp(s - max_score) for s in scores]
    total_sum = sum(exp_scores)
    return [x / total_sum for x in exp_scores]


def decode(case):
    """One question. Of its context: number of tokens, and the text of every span [first token][last token]."""
    n_best_size, max_answer_length = case['nBestSize'], case['maxAnswerLength']
    begin = case['queryTokens'] + 2
    doc_spans = doc_spans_of(case['tokens'], case['maxLength'] - case['queryTokens'] - 3, case['docStride'])
    assert len(doc_spans) == len(case['logits'])
    prelim = []
    score_null = 1000000
    null_logits = (0, 0)
    for feature_index, (start_logits, end_logits) in enumerate(case['logits']):
        span_start, span_length = doc_spans[feature_index]
        token_to_orig = {begin + i: span_start + i for i in range(span_length)}
        if start_logits[0] + end_logits[0] < score_null:
            score_null = start_logits[0] + end_logits[0]
            null_logits = (start_logits[0], end_logits[0])
        for start_index in get_best_indexes(start_logits, n_best_size):
            for end_index in get_best_indexes(end_logits, n_best_size):
                if start_index not in token_to_orig or end_index not in token_to_orig:
                    continue
                if not check_is_max_context(doc_spans, feature_index, token_to_orig[start_index]):
                    continue
                if end_index < start_index:
                    continue
                if end_index - start_index + 1 > max_answer_length:
                    continue
                text = case['texts'][token_to_orig[start_index]][token_to_orig[end_index]]
                prelim.append((text, start_logits[start_index], end_logits[end_index]))
    if case['version2']:
        prelim.append(('', null_logits[0], null_logits[1]))
    prelim = sorted(prelim, key=lambda x: x[1] + x[2], reverse=True)
    seen = set()
    nbest = []
    for pred in prelim:
        if len(nbest) >= n_best_size:
            break
        if pred[0] in seen:
            continue
        seen.add(pred[0])
        nbest.append(pred)
    if case['version2'] and '' not in seen:
        nbest.append(('', null_logits[0], null_logits[1]))
    if not nbest:
        nbest.append(('', 0.0, 0.0))
    probs = compute_softmax([p[1] + p[2] for p in nbest])
    # Where no span counts the script puts the text "empty" with logits of 0 among the candidates; SlimFit answers nothing then.
    best_non_null = next((p for p in nbest if p[0]), ('', 0.0, 0.0))
    score_diff = score_null - best_non_null[1] - best_non_null[2]
    if case['version2']:
        text = '' if score_diff > case['threshold'] else best_non_null[0]
    else:
        text = nbest[0][0]
    return {'text': text, 'scoreDifference': score_diff, 'nBest': [[p[0], q] for p, q in zip(nbest, probs)]}


if __name__ == '__main__':
    asked = json.loads(sys.stdin.buffer.read().decode('utf-8'))
    answer = {'evaluate': [evaluate(c) for c in asked.get('evaluate', [])], 'decode': [decode(c) for c in asked.get('decode', [])]}
    sys.stdout.write(json.dumps(answer))
