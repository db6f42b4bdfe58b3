/** Checksums against published check values and against a bit-by-bit model. */
import t from 'tap';
import { crc32cOf, crc32cWithoutField, onesComplementSum } from '../../src/common/checksum.js';

function slowCrc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  return ~crc >>> 0;
}

t.test('CRC-32C', async (t) => {
  const digits = Buffer.from('123456789');
  t.equal(crc32cOf(digits), 0xe3069283, 'check value');
  t.equal(crc32cOf(digits.subarray(4), crc32cOf(digits.subarray(0, 4))), 0xe3069283, 'in parts');
  t.equal(crc32cOf(Buffer.alloc(32)), 0x8a9136aa, 'RFC 3720: 32 zeroes');
  const data = Buffer.from(Array.from({ length: 4096 }, (_, index) => (index * 37) & 0xff));
  const cleared = Buffer.from(data);
  cleared.fill(0, 4, 8);
  t.equal(crc32cWithoutField(data, 4), slowCrc32c(cleared), 'own field as zeroes');
});

t.test('ones complement sum', async (t) => {
  const data = Buffer.alloc(512, 0xff);
  t.equal(onesComplementSum(data, 64), ~(508 * 255) >>> 0);
  t.equal(onesComplementSum(Buffer.alloc(512), 64), 0xffffffff);
});
