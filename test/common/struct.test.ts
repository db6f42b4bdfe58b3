/** Layout tables and UUID byte orders against hand-computed bytes. */
import t from 'tap';
import {
  array,
  bytes,
  struct,
  u8,
  u16be,
  u16le,
  u32be,
  u32le,
  u64be,
  u64le,
} from '../../src/common/struct.js';
import {
  guidField,
  uuidField,
  uuidFromBytes,
  uuidFromGuid,
  uuidToBytes,
  uuidToGuid,
} from '../../src/common/uuid.js';

const RECORD = struct('record', 50, {
  a: u8,
  b: u16le,
  c: u16be,
  d: u32le,
  e: u32be,
  f: u64le,
  g: u64be,
  h: bytes(5),
  i: array(u16le, 2),
  j: struct('inner', 12, { x: u32le, y: u64le }),
});

t.test('a struct gives offsets, decodes what it encodes, and checks its size', async (t) => {
  t.strictSame(RECORD.offsetOf, {
    a: 0,
    b: 1,
    c: 3,
    d: 5,
    e: 9,
    f: 13,
    g: 21,
    h: 29,
    i: 34,
    j: 38,
  });
  const values = {
    a: 1,
    b: 0x0203,
    c: 0x0405,
    d: 0x06070809,
    e: 0x0a0b0c0d,
    f: 0x0102030405060708n,
    g: 0xffffffffffffffffn,
    h: Buffer.from('abcde'),
    i: [1, 2],
    j: { x: 7, y: 8n },
  };
  const image = RECORD.encode(values);
  t.equal(image.length, 50);
  t.equal(
    image.toString('hex'),
    '01030204050908070' +
      '60a0b0c0d0807060504030201ffffffffffffffff6162636465' +
      '01000200070000000800000000000000',
  );
  const shifted = Buffer.concat([Buffer.from('xy'), image]);
  t.strictSame(RECORD.decode(shifted, 2), values);
  t.strictSame(RECORD.encode({}), Buffer.alloc(50), 'fields not given are zero');
  t.throws(() => struct('bad', 5, { a: u32le }), /fields take 4 bytes, the specification says 5/);
  t.throws(() => RECORD.encode({ h: Buffer.alloc(6) }), /6 bytes for a field of 5/);
  t.throws(() => RECORD.encode({ i: [1] }), /1 values for an array of 2/);
});

t.test('uuid byte orders', async (t) => {
  const uuid = '00112233-4455-6677-8899-aabbccddeeff';
  t.equal(uuidToBytes(uuid).toString('hex'), '00112233445566778899aabbccddeeff');
  t.equal(uuidToGuid(uuid).toString('hex'), '33221100554477668899aabbccddeeff');
  t.equal(uuidFromBytes(uuidToBytes(uuid)), uuid);
  t.equal(uuidFromGuid(Buffer.concat([Buffer.alloc(3), uuidToGuid(uuid)]), 3), uuid);
  const pair = struct('pair', 32, { rfc: uuidField, guid: guidField });
  t.strictSame(pair.decode(pair.encode({ rfc: uuid, guid: uuid })), { rfc: uuid, guid: uuid });
});
