import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ImageRows } from '../../src/data/imageSource';
import { decodeImage } from '../../src/data/pixels/decode';
import { DataRowError, ImageDecodeError, InvalidArgumentError } from '../../src/errors';
import { bytes, reference } from './pixels/pillow';

const png = bytes(reference.files.find((f) => f.name === 'PNG, one pixel')!.file);

test('rows of a Parquet file are images, with their columns under either name', async () => {
  const ten = new ImageRows([{ img: { bytes: png }, label: 3n }, { img: { bytes: png }, label: 0n }]);
  assert.deepEqual([ten.size, ten.labels, ten.labelNames], [2, Int32Array.of(3, 0), ['LABEL_0', 'LABEL_1', 'LABEL_2', 'LABEL_3']]);
  assert.deepEqual([...(await decodeImage(ten.image(0))).data], [1, 2, 3]);
  const hundred = new ImageRows([{ image: png, fine_label: 1, coarse_label: 0 }], { labelNames: ['apple', 'bear'] });
  assert.deepEqual([hundred.labels[0], hundred.labelNames[1]], [1, 'bear']);
  assert.equal(new ImageRows([{ image: png, fine_label: 1, coarse_label: 0 }], { labelColumn: 'coarse_label' }).labels[0], 0);
});

test('a bad row is named', async () => {
  const bad = (make: () => unknown, line: number, reason: RegExp) => assert.throws(make, (e: Error) => e instanceof DataRowError && e.line === line && reason.test(e.message), reason.source);
  bad(() => new ImageRows([{ img: { bytes: png }, label: 0 }, { img: null, label: 0 }], {}, 'a.parquet'), 2, /a\.parquet:2: column 'img'/);
  bad(() => new ImageRows([{ img: { bytes: png }, label: 2 }], { labelNames: ['a', 'b'] }), 1, /label 2 in column 'label' is no class from 0 to 1/);
  for (const label of [-1, 0.5, 'cat', undefined]) bad(() => new ImageRows([{ img: { bytes: png }, label }]), 1, /is no class/);
  assert.throws(() => new ImageRows([]), InvalidArgumentError);
  assert.throws(() => new ImageRows([{ picture: png, label: 0 }]), (e: Error) => e instanceof InvalidArgumentError && /'image' or 'img' among 'picture', 'label'/.test(e.message));
  const broken = new ImageRows([{ img: { bytes: png.subarray(0, 20) }, label: 0 }], {}, 'a.parquet');
  await assert.rejects(decodeImage(broken.image(0)), (e: Error) => e instanceof ImageDecodeError && e.file === 'a.parquet, row 1');
});
