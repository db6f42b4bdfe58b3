/** OVA files as others pack them: in a folder of their own, compressed, or no archives at all. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import { ImageBase } from '../../src/formats/base.js';
import { openChain } from '../../src/formats/open-chain.js';
import { verifyDigests } from '../../src/machines/digests.js';
import { readMachine } from '../../src/machines/read-machine.js';
import { stampedModel } from '../support/disk-model.js';
import { manifestText, ovfText, tarBytes } from '../support/machine-writer.js';
import { tempFolder } from '../support/temp-folder.js';
import { buildSparse, descriptorText } from '../support/vmdk-writer.js';

const model = stampedModel({ size: 65536, unitSize: 65536, pattern: 'd', salt: 1 });
const descriptor = descriptorText({
  createType: 'streamOptimized',
  extents: [`RW ${model.size / 512} SPARSE "disk 1.vmdk"`],
});
const disk = buildSparse(model, { stream: 'end', descriptor });
const ovf = Buffer.from(ovfText(disk.length));

t.test('what an OVF names lies beside it in the archive', async (t) => {
  const path = join(tempFolder(t), 'machine.ova');
  const manifest = Buffer.from(manifestText({ 'a.ovf': ovf, 'disk 1.vmdk': disk }));
  const pack = (folder: string, ofDisk = folder) => {
    const members = [
      { name: `${folder}a.ovf`, bytes: ovf },
      { name: `${folder}a.mf`, bytes: manifest },
      { name: `${ofDisk}disk 1.vmdk`, bytes: disk },
    ];
    writeFileSync(path, tarBytes(members));
  };
  const places = [
    ['', ''],
    ['./', './'],
    ['web/', 'web/'],
    ['web/', ''],
    ['a/b/', 'a/b/'],
  ] as const;
  for (const [folder, ofDisk] of places) {
    pack(folder, ofDisk);
    const { disks, digests, warnings } = readMachine(path);
    t.equal(digests.length, 2, `digests of both, in "${folder}" and "${ofDisk}"`);
    t.notMatch(warnings.join(), /manifest/);
    await verifyDigests(digests);
    const { window, format } = disks[0]!.image!;
    const base = new ImageBase(openChain(path, { format, window: window! }));
    const content = Buffer.alloc(model.size);
    base.readAt(content, 0, 0, content.length);
    base.close();
    t.ok(content.equals(model.content), 'the disk');
  }
  pack('', 'web/');
  t.throws(() => readMachine(path), { code: 'damaged', message: /no member "disk 1\.vmdk"/ });
});

t.test('a name in a pax header is the whole name, whatever the header says', async (t) => {
  const path = join(tempFolder(t), 'machine.ova');
  const folder = 'd'.repeat(90);
  const name = `${folder}/${'x'.repeat(60)}.vmdk`;
  const named = Buffer.from(ovfText(disk.length).replace('disk 1.vmdk', name));
  t.match(named.toString(), name);
  const record = (length: number): string => {
    const line = `${length} path=${name}\n`;
    return line.length === length ? line : record(line.length);
  };
  // As libarchive (the tar of macOS and FreeBSD) writes names that are long and not plain.
  const both = [
    { name: 'PaxHeader/x', bytes: Buffer.from(record(0)), type: 'x' },
    { name: `${'x'.repeat(60)}.vmdk`, prefix: folder, bytes: disk },
  ];
  for (const members of [both, both.slice(1)]) {
    writeFileSync(path, tarBytes([{ name: 'a.ovf', bytes: named }, ...members]));
    t.match(readMachine(path).disks, [{ image: { window: { length: disk.length } } }]);
  }
});

t.test('what is no tar archive is told by name', async (t) => {
  const path = join(tempFolder(t), 'machine.ova');
  const archive = tarBytes([
    { name: 'a.ovf', bytes: ovf },
    { name: 'disk 1.vmdk', bytes: disk },
  ]);
  const cases: [Buffer, RegExp, RegExp][] = [
    [gzipSync(archive), /compressed with gzip, not a tar archive/, /gunzip -c .*machine\.ova > /],
    [Buffer.from('PK\x03\x04'.padEnd(1024, '\x01')), /a ZIP archive/, /unzip/],
    [Buffer.from(`<?xml version="1.0"?>${'<a/>'.repeat(200)}`), /an XML text/, /\.ovf/],
  ];
  for (const [bytes, message, hint] of cases) {
    writeFileSync(path, bytes);
    t.throws(() => readMachine(path), { code: 'not-supported', message, hint });
  }
  const spoilt = Buffer.from(archive);
  spoilt[0] = 1;
  writeFileSync(path, spoilt);
  t.throws(() => readMachine(path), { code: 'damaged', message: /checksum is wrong/ });
});
