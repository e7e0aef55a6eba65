import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import sharp from 'sharp';
import { ImageFolder } from '../../src/data/imageFolder';
import { decodeImage } from '../../src/data/pixels/decode';
import { FileMissingError, ImageDecodeError, InvalidArgumentError } from '../../src/errors';
import { pattern } from './pixels/pillow';

const SHARED = path.resolve(__dirname, '../../../shared/data/imagenet-sample/train');
const temporary = mkdtempSync(path.join(tmpdir(), 'slimfit-folder-'));
let folders = 0;

/** A folder with these files. */
function folderOf(files: Readonly<Record<string, string | Uint8Array>>): string {
  const root = path.join(temporary, `${folders++}`);
  for (const [name, data] of Object.entries(files)) {
    mkdirSync(path.dirname(path.join(root, name)), { recursive: true });
    writeFileSync(path.join(root, name), data);
  }
  return root;
}

const raw = { width: 12, height: 8, channels: 3 as const };
// Promises: a test file cannot wait outside its tests.
const png = sharp(pattern(12, 8).data, { raw }).png().toBuffer();
const jpeg = sharp(pattern(12, 8).data, { raw }).jpeg().toBuffer();

test('classes and files come in sorted order; hidden files are left out, others named', async () => {
  const image = await png;
  const root = folderOf({ 'dog/b.png': image, 'dog/a.JPEG': image, 'cat/z.webp': image, 'cat/deep/a.png': image, 'cat/notes.txt': 'x', 'dog/.hidden.png': image, '.git/a.png': image, 'classes.txt': 'x' });
  const folder = ImageFolder.open(root);
  assert.deepEqual(folder.labelNames, ['cat', 'dog']);
  assert.deepEqual(folder.files, ['cat/z.webp', 'cat/deep/a.png', 'dog/a.JPEG', 'dog/b.png']);
  assert.deepEqual(folder.labels, Int32Array.of(0, 0, 1, 1));
  assert.deepEqual([...folder.ignored].sort(), ['cat/notes.txt', 'classes.txt']);
  assert.equal((await decodeImage(folder.image(2))).width, 12);
});

test('no folder, no classes, a class without images: each is said', async () => {
  const image = await png;
  assert.throws(() => ImageFolder.open(path.join(temporary, 'none')), FileMissingError);
  assert.throws(() => ImageFolder.open(folderOf({ 'a.png': image })), (e: Error) => e instanceof InvalidArgumentError && /no sub-folders/.test(e.message));
  assert.throws(() => ImageFolder.open(folderOf({ 'cat/a.png': image, 'dog/readme.md': 'x' })), (e: Error) => e instanceof InvalidArgumentError && /'dog' has no images/.test(e.message));
});

test('a link that leads out of the folder is refused; one to a file within it is followed', async () => {
  const image = await png;
  const outside = folderOf({ 'secret/a.png': image });
  const link = (target: string, name: string) => {
    const root = folderOf({ 'cat/a.png': image });
    symlinkSync(target, path.join(root, name));
    return root;
  };
  const refused = (root: string, reason: RegExp) => assert.throws(() => ImageFolder.open(root), (e: Error) => e instanceof InvalidArgumentError && reason.test(e.message), reason.source);
  refused(link(path.join(outside, 'secret/a.png'), 'cat/b.png'), /b\.png is a link out of the folder/);
  refused(link(path.join(outside, 'secret'), 'dog'), /dog is a link out of the folder/);
  refused(link('..', 'cat/again'), /again is a link/);
  refused(link('.', 'cat/again'), /again is a link to a folder/);
  refused(link('nothing.png', 'cat/b.png'), /b\.png is a link to nothing/);
  // A sibling whose name begins with the folder's.
  const near = folderOf({ 'cat/a.png': image });
  mkdirSync(`${near}-private`);
  writeFileSync(`${near}-private/x.png`, image);
  symlinkSync(`${near}-private/x.png`, path.join(near, 'cat/x.png'));
  refused(near, /x\.png is a link out of the folder/);
  assert.deepEqual(ImageFolder.open(link('a.png', 'cat/b.png')).files, ['cat/a.png', 'cat/b.png']);
});

test('broken files are found before training: named in an error, or left out and named in a list', async () => {
  const image = await png;
  const cut = (await jpeg).subarray(0, 200);
  const root = folderOf({ 'cat/a.png': image, 'cat/b.jpg': cut, 'cat/c.png': '', 'dog/d.jpg': 'text, not an image', 'dog/e.png': image });
  const folder = ImageFolder.open(root);
  await assert.rejects(folder.check(), (e: Error) => e instanceof ImageDecodeError && e.file.endsWith('cat/b.jpg') && /2 more images/.test(e.message));
  const good = await folder.check('skip');
  assert.deepEqual(good.files, ['cat/a.png', 'dog/e.png']);
  assert.deepEqual(good.labels, Int32Array.of(0, 1));
  assert.deepEqual(good.broken.map((b) => b.file), ['cat/b.jpg', 'cat/c.png', 'dog/d.jpg']);
  assert.match(good.broken[1].reason, /empty/);
  // The folder that was asked has not changed, and a good one stays what it is.
  assert.equal(folder.size, 5);
  assert.equal(await good.check(), good);
  const hopeless = ImageFolder.open(folderOf({ 'cat/a.png': image, 'dog/b.png': '' }));
  await assert.rejects(hopeless.check('skip'), (e: Error) => e instanceof InvalidArgumentError && /every image of class 'dog' is broken/.test(e.message));
});

test('the shared sample has 100 classes of one image, all of which decode', { skip: existsSync(SHARED) ? false : 'no ../shared/data/imagenet-sample' }, async () => {
  const folder = ImageFolder.open(SHARED);
  assert.deepEqual([folder.size, folder.labelNames.length, folder.ignored], [100, 100, []]);
  assert.equal(await folder.check(), folder);
});
