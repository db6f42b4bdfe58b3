/** Probing: what has a magic is told by it, what is no disk is refused by name, the rest is raw. */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t from 'tap';
import {
  FORMAT_NAMES,
  isFormatName,
  openImage,
  openStated,
  probeImage,
} from '../../src/formats/registry.js';
import { openDescriptors } from '../conformance/image-suite.js';
import { stampedModel } from '../support/disk-model.js';
import { tempFolder } from '../support/temp-folder.js';
import { buildVdi } from '../support/vdi-writer.js';
import { writeVhd } from '../support/vhd-writer.js';

const MODEL = stampedModel({ size: 65536, unitSize: 4096, pattern: 'du', salt: 1 });

t.test('magics', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'image');
  const before = openDescriptors();
  const known: [string, Buffer][] = [
    ['vdi', buildVdi(MODEL)],
    ['raw', MODEL.content],
    ['raw', Buffer.alloc(512)],
  ];
  for (const [format, content] of known) {
    writeFileSync(path, content);
    t.equal(probeImage(path), format);
    const image = openImage(path);
    t.equal(image.format, format);
    image.close();
  }
  writeFileSync(path, buildVdi(MODEL));
  const image = openImage(path, 'raw');
  t.equal(image.format, 'raw', 'a stated format wins over the magic');
  image.close();
  t.equal(openDescriptors(), before);
  t.ok(isFormatName('qcow2') && !isFormatName('auto') && FORMAT_NAMES.length === 6);
});

t.test(
  'a guest that writes a magic at its start makes no other format of a fixed VHD',
  async (t) => {
    const path = join(tempFolder(t), 'disk.vhd');
    for (const disk of [buildVdi(MODEL), Buffer.from('QFI\xfb\0\0\0\x03', 'latin1')]) {
      const model = stampedModel({ size: 65536, unitSize: 4096, pattern: 'd', salt: 2 });
      disk.copy(model.content);
      for (const footerSize of [512, 511] as const) {
        writeVhd(path, { model, type: 'fixed', footerSize });
        t.equal(probeImage(path), 'vhd');
        const footer = readFileSync(path).subarray(-footerSize);
        writeFileSync(path, Buffer.concat([model.content, Buffer.alloc(512), footer]));
        t.not(probeImage(path), 'vhd', 'unless its footer says another size');
        footer.writeUInt8(1, 100);
        writeFileSync(path, Buffer.concat([model.content, footer]));
        t.not(probeImage(path), 'vhd', 'or is damaged');
      }
    }
  },
);

t.test('an unknown format is refused by name', async (t) => {
  const path = join(tempFolder(t), 'image');
  writeFileSync(path, MODEL.content);
  t.throws(() => openImage(path, 'dmg'), {
    code: 'not-supported',
    message: /format "dmg" is not supported/,
    hint: /raw, vdi, vmdk, vhd, vhdx, qcow2/,
  });
});

t.test('a file of another format than was stated is no damaged image', async (t) => {
  const folder = tempFolder(t);
  const before = openDescriptors();
  const raw = join(folder, 'disk.raw');
  writeFileSync(raw, MODEL.content);
  const vdi = join(folder, 'disk.img');
  writeFileSync(vdi, buildVdi(MODEL));
  for (const format of FORMAT_NAMES.filter((name) => name !== 'raw')) {
    t.throws(() => openStated(raw, format), {
      code: 'usage',
      message: new RegExp(`disk\\.raw.* says that it is ${format}, it looks like a raw disk$`),
      hint: /\(raw\)/,
    });
    if (format === 'vdi') continue;
    t.throws(() => openStated(vdi, format), {
      code: 'usage',
      message: new RegExp(`disk\\.img is not ${format}: .* it is vdi$`),
      hint: /\(vdi\)/,
    });
  }
  openStated(vdi, 'vdi').close();
  const zipped = join(folder, 'disk.vdi.gz');
  writeFileSync(zipped, gzipSync(buildVdi(MODEL)));
  t.throws(() => openStated(zipped, 'vdi'), { code: 'not-supported', message: /gzip/ });
  const cut = join(folder, 'cut.vdi');
  writeFileSync(cut, buildVdi(MODEL).subarray(0, 200));
  t.throws(() => openStated(cut, 'vdi'), { code: 'damaged', message: /too short/ });
  t.equal(openDescriptors(), before);
});

t.test('compressed files, archives and foreign images do not pass as raw', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'image');
  const pad = (magic: string, at = 0) => {
    const file = Buffer.alloc(4096);
    file.write(magic, at, 'latin1');
    return file;
  };
  const cases: [string, Buffer][] = [
    ['compressed with gzip', gzipSync(MODEL.content)],
    ['compressed with xz', pad('\xfd7zXZ\0')],
    ['compressed with zstd', pad('\x28\xb5\x2f\xfd')],
    ['compressed with bzip2', pad('BZh91AY&SY')],
    ['a ZIP archive', pad('PK\x03\x04')],
    ['a tar archive', pad('ustar', 257)],
    ['a Parallels image', pad('WithoutFreeSpace')],
    ['a Bochs image', pad('Bochs Virtual HD Image')],
    ['a QED image', pad('QED\0')],
    ['an image of qcow version 1', pad('QFI\xfb\0\0\0\x01')],
    ['an Apple disk image', pad('koly\0\0\0\x04\0\0\x02\0', 4096 - 512)],
    ['an Android sparse image', pad('\x3a\xff\x26\xed\x01\0')],
    ['a Proxmox backup', pad('VMA\0\0\0\0\x01')],
    ['a partclone image', pad('partclone-image')],
    ['an Apple sparse image', pad('sprs\0\0\0\x03')],
    ['an encrypted Apple disk image', pad('encrcdsa\0\0\0\x02')],
    ['a COW image', pad('OOOM\0\0\0\x02')],
    ['a cloop image', pad('#!/bin/sh\n#V2.0 Format\nmodprobe cloop')],
    ['an EWF', pad('EVF2\x0d\x0a\x81\0\x02\x01')],
    ['an AFF image', pad('AFF10\x0d\x0a\0')],
    ['a RAR archive', pad('Rar!\x1a\x07\x01\0')],
  ];
  for (const [what, content] of cases) {
    writeFileSync(path, content);
    t.throws(
      () => openImage(path),
      { code: 'not-supported', message: new RegExp(`image is ${what}`) },
      what,
    );
    t.throws(() => openImage(path), { code: 'not-supported', hint: /--format raw/ });
  }
  writeFileSync(path, pad('QED\0'));
  const image = openImage(path, 'raw');
  t.equal(image.virtualSize, 4096, 'unless they are said to be raw');
  image.close();
});

t.test('the hint for a compressed image works, whatever its name', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'disk.img');
  writeFileSync(path, gzipSync(MODEL.content));
  let hint = '';
  try {
    openImage(path).close();
  } catch (error) {
    hint = (error as { hint?: string }).hint ?? '';
  }
  const command = /: (gunzip .*?),/.exec(hint)?.[1] ?? 'false';
  execFileSync('sh', ['-c', command], { cwd: folder, stdio: 'pipe' });
  t.ok(readFileSync(join(folder, 'NEW')).equals(MODEL.content));
});
