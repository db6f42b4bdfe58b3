/** zstd clusters: frames of every shape, and frames that must be told from sound ones. */
import { spawnSync } from 'node:child_process';
import t from 'tap';
import { unpackZstd } from '../../src/formats/qcow2/zstd.js';
import { skippableFrame, zstdFrame } from '../support/qcow2-zstd-frame.js';
import { createRandom } from '../support/random.js';
import { tool } from '../support/tools.js';

const SIZE = 200_000;
const content = Buffer.concat([
  Buffer.alloc(140_000, 'abc'),
  createRandom(3).bytes(SIZE - 140_000),
]);
const TAIL = Buffer.alloc(300, 0x28);

t.test('frames of many shapes', async (t) => {
  const half = 120_000;
  const shapes: [string, Buffer][] = [
    ['content size', zstdFrame(content)],
    ['window instead of size', zstdFrame(content, { windowed: true })],
    [
      'two frames, one skipped between',
      Buffer.concat([
        zstdFrame(content.subarray(0, half)),
        skippableFrame(100),
        zstdFrame(content.subarray(half), { windowed: true }),
      ]),
    ],
    ['runs', zstdFrame(Buffer.alloc(SIZE, 7))],
  ];
  for (const [name, frames] of shapes) {
    const expected = name === 'runs' ? Buffer.alloc(SIZE, 7) : content;
    t.ok(expected.equals(unpackZstd(frames, SIZE)), name);
    t.ok(expected.equals(unpackZstd(Buffer.concat([frames, TAIL]), SIZE)), `${name}, then rubbish`);
  }
  t.equal(unpackZstd(zstdFrame(content), SIZE + 1).length, SIZE, 'too little shows by its length');
});

t.test('frames of the zstd program', async (t) => {
  const zstd = tool(t, 'zstd', ['--version']);
  if (zstd === undefined) return;
  for (const args of [['-1'], ['-19'], ['--no-check'], ['--no-content-size'], ['--long=25']]) {
    const { stdout } = spawnSync(zstd, ['-c', ...args], { input: content });
    const packed = Buffer.concat([stdout, TAIL]);
    t.ok(content.equals(unpackZstd(packed, SIZE)), args.join(' '));
  }
});

t.test('broken frames', async (t) => {
  const sound = zstdFrame(content);
  const cases: [string, Buffer][] = [
    ['nothing', Buffer.alloc(512)],
    ['cut in the header', sound.subarray(0, 6)],
    ['cut in a block', sound.subarray(0, 5000)],
    ['cut in a block header', sound.subarray(0, 11)],
    ['reserved block type', Buffer.from(sound).fill(0xff, 9, 10)],
    ['wrong checksum', zstdFrame(content, { checksumFlag: true })],
    ['more than a cluster', zstdFrame(Buffer.concat([content, content]))],
    ['skippable frame that is cut', skippableFrame(100).subarray(0, 50)],
  ];
  for (const [name, packed] of cases) t.throws(() => unpackZstd(packed, SIZE), Error, name);
});
