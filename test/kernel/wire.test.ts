import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import { Wire, WireError } from '../../kernel/wire';

const KEY = 'a0436f6c-1916-498b-8eb9-e81ab9368e84';
const HEADER = '{"msg_id":"1","session":"s","username":"u","date":"2024-01-01T00:00:00Z","msg_type":"kernel_info_request","version":"5.3"}';

/** Frames of a message, signed here by the protocol's own words: HMAC-SHA256 of the four parts in their order. */
function signed(parts: readonly string[], key = KEY, identities: readonly string[] = ['id']): Buffer[] {
  const signature = createHmac('sha256', key).update(parts.join('')).digest('hex');
  return [...identities, '<IDS|MSG>', signature, ...parts].map((s) => Buffer.from(s));
}

const good = () => signed([HEADER, '{}', '{}', '{"a":1}']);

test('a message signed with the key is understood, with its identities', () => {
  const message = new Wire({ key: KEY }).decode(good());
  assert.equal(message.header.msg_type, 'kernel_info_request');
  assert.deepEqual(message.content, { a: 1 });
  assert.equal(Buffer.from(message.identities[0]).toString(), 'id');
});

test('what is sent carries the signature of its four parts and its parent', () => {
  const parent = new Wire({ key: KEY }).decode(good()).header;
  const [identity, delimiter, signature, ...parts] = new Wire({ key: KEY }).encode('status', { execution_state: 'idle' }, parent, [Buffer.from('id')]).map(String);
  assert.equal(identity, 'id');
  assert.equal(delimiter, '<IDS|MSG>');
  assert.equal(signature, createHmac('sha256', KEY).update(parts.join('')).digest('hex'));
  assert.equal(JSON.parse(parts[0]).msg_type, 'status');
  assert.deepEqual(JSON.parse(parts[1]), parent);
});

test('a message signed with another key, or changed by one bit, is refused before it is parsed, and the wanted signature is not told', () => {
  const wire = new Wire({ key: KEY });
  const notJson = ['{', '{', '{', '{'];
  const want = createHmac('sha256', KEY).update(notJson.join('')).digest('hex');
  assert.throws(
    () => wire.decode(signed(notJson, 'other')),
    (e: Error) => e instanceof WireError && e.message === 'bad signature' && !e.message.includes(want),
  );
  for (let part = 2; part < 6; part++) {
    const frames = good();
    frames[part][0] ^= 1;
    assert.throws(() => wire.decode(frames), { message: 'bad signature' });
  }
  const short = good();
  short[2] = short[2].subarray(0, 10);
  assert.throws(() => wire.decode(short), { message: 'bad signature' });
});

test('a message that is played back is refused', () => {
  const wire = new Wire({ key: KEY });
  wire.decode(good());
  assert.throws(() => wire.decode(good()), { message: 'this message was received before' });
});

test('a message without a delimiter, with too few parts, without JSON or without a header is refused', () => {
  const wire = new Wire({ key: KEY });
  const cases = [[], [Buffer.from('x')], good().slice(1, 2), good().slice(0, 5), signed(['nope', '{}', '{}', '{}']), signed(['{}', '{}', '{}', '{}']), signed(['null', '{}', '{}', '{}'])];
  for (const frames of cases) assert.throws(() => wire.decode(frames), WireError);
});

test('without a key nothing is understood: the protocol would take every message', () => {
  assert.throws(() => new Wire({ key: '' }), WireError);
  assert.throws(() => new Wire({} as { key: string }), WireError);
});

test('a signature scheme that is not supported is refused by name', () => {
  assert.throws(() => new Wire({ key: KEY, signature_scheme: 'hmac-md5' }), /hmac-md5/);
});

test('a message whose content is no object, or whose header holds what is no text, is refused', () => {
  for (const content of ['null', '[]', '5', '"x"']) assert.throws(() => new Wire({ key: KEY }).decode(signed([HEADER, '{}', '{}', content])), (e: Error) => e instanceof WireError && /content/.test(e.message));
  assert.throws(() => new Wire({ key: KEY }).decode(signed([HEADER.replace('"u"', '{}'), '{}', '{}', '{}'])), (e: Error) => e instanceof WireError && /username/.test(e.message));
});
