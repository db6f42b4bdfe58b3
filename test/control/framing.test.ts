/** Lines come out whole, however the bytes went in, and within the limit. */
import fc from 'fast-check';
import t from 'tap';
import { encodeMessage, FramingError, LineDecoder } from '../../src/control/framing.js';

function decodeAll(chunks: readonly Buffer[], maxBytes: number): string[] {
  const decoder = new LineDecoder(maxBytes);
  return chunks.flatMap((chunk) => [...decoder.push(chunk)]);
}

/** Cuts a buffer at the given places. */
function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const places = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].sort((a, b) => a - b);
  let start = 0;
  const parts = places.map((place) => {
    const part = bytes.subarray(start, place);
    start = place;
    return part;
  });
  return [...parts, bytes.subarray(start)];
}

t.test('any split and join of the stream gives the same messages', async (t) => {
  const message = fc.dictionary(fc.string(), fc.string({ unit: 'binary' }));
  fc.assert(
    fc.property(fc.array(message), fc.array(fc.nat()), (messages, cuts) => {
      const bytes = Buffer.from(messages.map(encodeMessage).join(''));
      const lines = decodeAll(split(bytes, cuts), 1024 * 1024);
      return JSON.stringify(lines.map((line) => JSON.parse(line))) === JSON.stringify(messages);
    }),
  );
  t.pass('held for all');
});

t.test('one byte at a time', async (t) => {
  const bytes = Buffer.from('{"a":"é€😀"}\n\n  \n{"b":1}\r\n');
  const chunks = [...bytes].map((byte) => Buffer.from([byte]));
  t.same(decodeAll(chunks, 100), ['{"a":"é€😀"}', '{"b":1}']);
});

t.test('the limit holds for a line in one piece, in many, and unfinished', async (t) => {
  const exact = Buffer.from(`${'x'.repeat(10)}\n`);
  t.same(decodeAll([exact], 10), ['x'.repeat(10)]);
  t.same(decodeAll([exact.subarray(0, 4), exact.subarray(4)], 10), ['x'.repeat(10)]);
  t.throws(() => decodeAll([Buffer.from(`${'x'.repeat(11)}\n`)], 10), FramingError);
  t.throws(() => decodeAll([Buffer.from('x'.repeat(6)), Buffer.from('y'.repeat(5))], 10), {
    message: 'a message is longer than 10 bytes',
  });
  t.throws(() => decodeAll([Buffer.alloc(11)], 10), FramingError);
});

t.test('what is no text is refused', async (t) => {
  for (const bytes of [
    [0xff, 0x0a],
    [0xc3, 0x0a],
    [0x00, 0x0a],
    [0xed, 0xa0, 0x80, 0x0a],
  ]) {
    t.throws(() => decodeAll([Buffer.from(bytes)], 100), {
      message: 'a message is not UTF-8 text',
    });
  }
});

t.test('a long line in small pieces is held once', async (t) => {
  const decoder = new LineDecoder(1024 * 1024);
  const piece = Buffer.alloc(7, 0x61);
  for (let sent = 0; sent + 7 <= 1024 * 1024; sent += 7) {
    for (const line of decoder.push(piece)) t.fail(`unexpected line ${line}`);
  }
  t.equal(decoder.pending, 1024 * 1024 - ((1024 * 1024) % 7));
  const [line] = [...decoder.push(Buffer.from('\n'))];
  t.equal(line?.length, 1024 * 1024 - ((1024 * 1024) % 7));
  t.equal(decoder.pending, 0);
});
