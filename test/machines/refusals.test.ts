/**
 * Broken and hostile machine files: each is refused by name with the code that fits, none crashes,
 * hangs, or makes another file of the host readable.
 */
import { execFileSync } from 'node:child_process';
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { describeBase } from '../../src/formats/base.js';
import { verifyDigests } from '../../src/machines/digests.js';
import { readMachine } from '../../src/machines/read-machine.js';
import { stampedModel } from '../support/disk-model.js';
import {
  manifestText,
  ovfText,
  type TarEntry,
  tarBytes,
  writeVboxMachine,
  writeVmwareMachine,
} from '../support/machine-writer.js';
import { tempFolder } from '../support/temp-folder.js';
import { buildSparse, descriptorText, writeMonolithic } from '../support/vmdk-writer.js';

const model = stampedModel({ size: 65536, unitSize: 65536, pattern: 'd', salt: 1 });

/** Reads a machine as an import does, up to the point where something would be made. */
async function importAll(path: string, allowFolders: readonly string[] = []): Promise<void> {
  const machine = readMachine(path, { allowFolders });
  await verifyDigests(machine.digests);
  for (const { image } of [machine, ...machine.snapshots].flatMap(({ disks }) => disks)) {
    if (image === undefined) continue;
    const { path: file, ...options } = image;
    describeBase(file, { ...options, allowFolders: [machine.folder, ...allowFolders] });
  }
}

async function checkRefused(t: Test, path: string, code: string, about: RegExp): Promise<void> {
  try {
    await importAll(path);
    t.fail(`${path} was taken`);
  } catch (error) {
    if (!(error instanceof DiskError)) throw error;
    t.equal(error.code, code, error.message);
    t.match(error.message, about);
    t.notMatch(error.message, /\n/, 'one line');
    t.match(error.message, /machine|\.(vbox|vmx|vmsd|ovf|ova|xml|mf|vdi|vmdk)/, 'names the file');
  }
}

type Row = readonly [what: string, from: RegExp | string, to: string, code: string, about: RegExp];

/** A sound file with one text replaced. */
const VBOX: readonly Row[] = [
  [
    'a billion laughs',
    '<VirtualBox',
    `<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><VirtualBox`,
    'not-supported',
    /document type/,
  ],
  [
    'an external entity',
    '<VirtualBox',
    '<!DOCTYPE l SYSTEM "file:///etc/passwd"><VirtualBox',
    'not-supported',
    /document type/,
  ],
  ['nesting', '<VirtualBox', `${'<a>'.repeat(5000)}<VirtualBox`, 'damaged', /XML/],
  ['closed nesting', '</Machine>', `${deep(3000)}</Machine>`, 'damaged', /nested/i],
  ['many elements', '</Machine>', `${'<a/>'.repeat(250_000)}</Machine>`, 'not-supported', /tags/],
  ['many attributes', '<Machine', `<Machine ${attributes(450_000)}`, 'not-supported', /attributes/],
  ['a name of JavaScript', '</Machine>', '<__proto__ a="1"/></Machine>', 'damaged', /XML/],
  ['an attribute of that name', '<Machine ', '<Machine __proto__="1" ', 'damaged', /XML/],
  ['half a file', /<Snapshot [\s\S]*/, '', 'damaged', /XML/],
  ['another root', /VirtualBox/g, 'Virtual', 'not-supported', /is no machine/],
  ['no machine', /Machine/g, 'Global', 'not-supported', /has no machine/],
  ['encryption', /Machine/g, 'MachineEncrypted', 'not-supported', /encrypted/],
  ['no registry', /<MediaRegistry>.*<\/MediaRegistry>/s, '', 'damaged', /media registry/],
  ['a disk outside', 'base.vdi', '../secret.vdi', 'not-permitted', /outside the folder/],
  ['an absolute one', 'base.vdi', '/etc/passwd', 'not-permitted', /outside the folder/],
  ['a URL', 'base.vdi', 'nbd://host/x', 'not-permitted', /protocol/],
  ['a device', 'base.vdi', '/dev/zero', 'not-permitted', /outside the folder/],
  ['a FIFO', 'base.vdi', 'fifo', 'failed', /not a regular file/],
  ['a link outside', 'base.vdi', 'link', 'not-permitted', /outside the folder/],
  ['a missing disk', 'base.vdi', 'gone.vdi', 'not-found', /gone\.vdi/],
  ['a disk of Windows', 'base.vdi', 'C:\\VMs\\gone.vdi', 'not-found', /gone\.vdi/],
  [
    'another parent',
    'location="base.vdi"',
    'location="Snapshots/{two}.vdi"',
    'damaged',
    /UUID|uuid/,
  ],
  ['a ring', 'location="base.vdi"', 'location="Snapshots/{now}.vdi"', 'damaged', /vdi/],
  ['a format', /format="VDI"/g, 'format="iSCSI"', 'not-supported', /iSCSI/],
  ['a lie of the format', /format="VDI"/g, 'format="VHD"', 'usage', /is not vhd: .* it is vdi/],
  [
    'a current that is not there',
    /currentSnapshot="\{0/,
    'currentSnapshot="{9',
    'damaged',
    /current/,
  ],
  ['one snapshot twice', /00000003-/g, '00000002-', 'damaged', /UUID/],
  ['one disk twice', /uuid="\{00000012-/g, 'uuid="{00000011-', 'damaged', /twice/],
  ['memory', 'RAMSize="4096"', 'RAMSize="lots"', 'damaged', /memory is "lots"/],
  ['much memory', 'RAMSize="4096"', `RAMSize="${2 ** 52}"`, 'damaged', /memory/],
  ['negative CPUs', 'CPU count="2"', 'CPU count="-2"', 'damaged', /CPU/],
];

function deep(levels: number): string {
  return '<a>'.repeat(levels) + '</a>'.repeat(levels);
}

function attributes(count: number): string {
  return Array.from({ length: count }, (_, index) => `a${index}=""`).join(' ');
}

t.test('settings of VirtualBox', async (t) => {
  const outside = tempFolder(t);
  const folder = join(outside, 'machine');
  mkdirSync(folder);
  writeFileSync(join(outside, 'secret.vdi'), 'of somebody else');
  execFileSync('mkfifo', [join(folder, 'fifo')]);
  symlinkSync('/etc/passwd', join(folder, 'link'));
  for (const [what, from, to, code, about] of VBOX) {
    await t.test(what, async (t) => {
      const { path } = writeVboxMachine(folder, { replace: [[from, to]] });
      await checkRefused(t, path, code, about);
    });
  }
  const { path } = writeVboxMachine(folder);
  await t.resolves(importAll(path), 'as it is, it is taken');
});

t.test('the hint names the folder to allow, and allowing it helps', async (t) => {
  const folder = tempFolder(t);
  const machine = join(folder, 'machine');
  const { path } = writeVboxMachine(machine, {
    replace: [['location="base.vdi"', `location="${folder}/disks/base.vdi"`]],
  });
  rmSync(join(folder, 'disks'), { recursive: true, force: true });
  mkdirSync(join(folder, 'disks'));
  execFileSync('mv', [join(machine, 'base.vdi'), join(folder, 'disks')]);
  await t.rejects(importAll(path), {
    code: 'not-permitted',
    hint: `if you trust this file with what lies there, say so: --allow-folder ${folder}/disks`,
  });
  await t.resolves(importAll(path, [join(folder, 'disks')]));
  execFileSync('mv', [join(folder, 'disks/base.vdi'), machine]);
  await t.resolves(importAll(path), 'moved beside the machine, it is found by its bare name');
});

const VMX: readonly (readonly [what: string, extra: string, code: string, about: RegExp])[] = [
  ['encryption', 'encryption.keySafe = "x"', 'not-supported', /encrypted/],
  ['a device of the host', 'scsi0:0.deviceType = "rawDisk"', 'not-supported', /rawDisk|rawdisk/],
  ['a disk without a file', 'scsi0:0.fileName = ""', 'not-supported', /no file/],
  ['a disk outside', 'scsi0:0.fileName = "/etc/passwd"', 'not-permitted', /outside/],
  ['a parent beside', 'scsi0:0.fileName = "../x.vmdk"', 'not-found', /x\.vmdk/],
  ['CPUs', 'numvcpus = "two"', 'damaged', /numvcpus/],
  ['a NUL', 'x = "\0"', 'damaged', /no VMware/],
];

t.test('configurations of VMware', async (t) => {
  const folder = tempFolder(t);
  for (const [what, extra, code, about] of VMX) {
    await t.test(what, async (t) => {
      const { path } = writeVmwareMachine(folder, `${extra}\n`);
      await checkRefused(t, path, code, about);
    });
  }
  const { path } = writeVmwareMachine(folder);
  const vmsd = join(folder, 'machine.vmsd');
  const refuses = (text: string, code: string, about: RegExp) => {
    writeFileSync(vmsd, text);
    return checkRefused(t, path, code, about);
  };
  const ring = ['a', 'b'].map(
    (id, n) => `snapshot${n}.uid = "${id}"\nsnapshot${n}.parent = "${'ba'[n]}"`,
  );
  await refuses(ring.join('\n'), 'damaged', /own ancestor/);
  await refuses('snapshot0.uid = "1"\nsnapshot1.uid = "1"', 'damaged', /one uid/);
  await refuses('.encoding = "klingon"\nsnapshot.current = "1"', 'not-supported', /klingon/);
  const started = performance.now();
  const blanks = ' '.repeat(300_000);
  const lines = '\n'.repeat(300_000);
  for (const text of [`a${blanks}\nb = "${blanks}x${blanks}x\n`, `${lines}c = "1"\n`]) {
    writeFileSync(vmsd, text);
    await t.resolves(importAll(path), 'says nothing of snapshots');
  }
  t.ok(performance.now() - started < 20_000, 'blanks and empty lines take no time');
  rmSync(vmsd);
  symlinkSync('/etc/passwd', vmsd);
  await checkRefused(t, path, 'not-permitted', /outside/);
  rmSync(vmsd);
  await t.resolves(importAll(path), 'without a .vmsd there are no snapshots');
  writeFileSync(path, '\u0001\u0002');
  await checkRefused(t, path, 'damaged', /no VMware/);
});

t.test('one file does not stand for two disks of one bare name', async (t) => {
  const folder = tempFolder(t);
  const second = (name: string) =>
    `scsi0:1.present = "TRUE"\nscsi0:1.fileName = "${name}"\nide0:0.present = "TRUE"\n` +
    `ide0:0.fileName = "/vmfs/volumes/one/machine/disk-000004.vmdk"\n`;
  for (const name of ['/vmfs/volumes/two/machine/disk-000004.vmdk', 'disk-000004.vmdk']) {
    const { path } = writeVmwareMachine(folder, second(name));
    await checkRefused(t, path, 'not-found', /only this one file/);
  }
  const { path } = writeVmwareMachine(folder, second('disk-000003.vmdk').replace(/ide.*/gs, ''));
  await t.resolves(importAll(path), 'two files are two disks');
});

t.test('OVF descriptors', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'machine.ovf');
  writeMonolithic(join(folder, 'disk 1.vmdk'), model, { stream: 'end' });
  const size = execFileSync('stat', ['-c', '%s', join(folder, 'disk 1.vmdk')])
    .toString()
    .trim();
  const file = (rest: string) => `<File ovf:id="file1" ovf:href="disk 1.vmdk" ${rest}/>`;
  const good = ovfText(Number(size));
  const disk = (rest: string) => ({ disks: `<Disk ovf:diskId="vmdisk1" ${rest}/>` });
  const rows: [what: string, text: string, code: string, about: RegExp][] = [
    ['compressed', ovfText(1, { files: file('ovf:compression="gzip"') }), 'not-supported', /gzip/],
    ['chunks', ovfText(1, { files: file('ovf:chunkSize="1000"') }), 'not-supported', /chunks/],
    ['another size', ovfText(1), 'damaged', /disk 1\.vmdk/],
    ['no file', ovfText(1, { files: '' }), 'damaged', /file1/],
    ['outside', good.replace('disk 1.vmdk', '/etc/passwd'), 'not-permitted', /passwd/],
    ['a URL', good.replace('disk 1.vmdk', 'https://host/x.vmdk'), 'not-permitted', /protocol/],
    ['a delta', ovfText(1, disk('ovf:parentRef="x"')), 'not-supported', /delta/],
    ['no disk', ovfText(1, { disks: '' }), 'damaged', /vmdisk1/],
    ['a unit', good.replace('byte * 2^20</rasd', 'byte * 2^200</rasd'), 'not-supported', /unit/],
    ['0.9', good.replace('<References>', '<Section/><References>'), 'not-supported', /0\.9/],
    ['none', good.replace(/VirtualSystem/g, 'System'), 'damaged', /no virtual system/],
    [
      'two',
      good.replace('</Envelope>', '<VirtualSystem ovf:id="b"/></Envelope>'),
      'not-supported',
      /2 virtual systems/,
    ],
  ];
  for (const [what, text, code, about] of rows) {
    await t.test(what, async (t) => {
      writeFileSync(path, text);
      await checkRefused(t, path, code, about);
    });
  }
  writeFileSync(path, good);
  const manifest = join(folder, 'machine.mf');
  for (const algorithm of ['sha1', 'sha256', 'sha512'] as const) {
    writeFileSync(manifest, manifestText({ 'machine.ovf': Buffer.from(good) }, algorithm));
    await t.resolves(importAll(path), algorithm);
    writeFileSync(manifest, manifestText({ 'machine.ovf': Buffer.from('else') }, algorithm));
    await checkRefused(t, path, 'damaged', /machine\.ovf.*not what the manifest says/);
  }
  writeFileSync(manifest, manifestText({ 'disk 1.vmdk': Buffer.from('else') }));
  await checkRefused(t, path, 'damaged', /disk 1\.vmdk.*not what the manifest says/);
  writeFileSync(manifest, 'SHA256(x)= 12');
  await checkRefused(t, path, 'damaged', /no digest/);
  rmSync(manifest);
  symlinkSync('/etc/passwd', manifest);
  await checkRefused(t, path, 'not-permitted', /outside/);
});

t.test('archives', async (t) => {
  const path = join(tempFolder(t), 'machine.ova');
  const createType = 'streamOptimized';
  const extents = [`RW 128 SPARSE "x.vmdk"`];
  const text = descriptorText({ createType, extents });
  const vmdk = buildSparse(model, { stream: 'end', descriptor: text });
  const ovf = { name: 'a.ovf', bytes: Buffer.from(ovfText(vmdk.length)) };
  const disk = { name: 'disk 1.vmdk', bytes: vmdk };
  const lone = (descriptor: string): TarEntry[] => {
    const bytes = Buffer.from(descriptor);
    return [
      { name: 'a.ovf', bytes: Buffer.from(ovfText(bytes.length)) },
      { name: 'disk 1.vmdk', bytes },
    ];
  };
  const flat = { createType: 'monolithicFlat', extents: ['RW 1 FLAT "disk 1.vmdk" 0'] };
  const child = { createType, extents, parentCid: '00000001', parentName: 'a.ovf' };
  const childBytes = buildSparse(model, { stream: 'end', descriptor: descriptorText(child) });
  const sparsePax = Buffer.from('22 GNU.sparse.major=1\n');
  const rows: [what: string, entries: TarEntry[], code: string, about: RegExp][] = [
    ['a way out', [ovf, disk, { name: '../x' }], 'not-supported', /leads elsewhere/],
    ['a way out inside', [ovf, disk, { name: 'a/../../x' }], 'not-supported', /leads elsewhere/],
    ['an absolute name', [ovf, disk, { name: '/etc/x' }], 'not-supported', /leads elsewhere/],
    ['a link', [ovf, { ...disk, type: '2' }], 'not-supported', /no plain file/],
    ['a hard link', [ovf, { ...disk, type: '1' }], 'not-supported', /no plain file/],
    ['a device', [ovf, disk, { name: 'null', type: '3' }], 'not-supported', /no plain file/],
    ['holes', [ovf, { name: 'x', type: 'x', bytes: sparsePax }, disk], 'not-supported', /sparse/],
    ['a huge size', [ovf, { ...disk, size: 0o77777777777 }], 'damaged', /goes on past its end/],
    ['two of a name', [ovf, disk, disk], 'damaged', /two members/],
    ['no descriptor', [disk], 'damaged', /no OVF/],
    ['two descriptors', [ovf, { ...ovf, name: 'b.ovf' }, disk], 'damaged', /more than one OVF/],
    ['no disk', [ovf], 'damaged', /no member "disk 1.vmdk"/],
    ['an extent elsewhere', lone(descriptorText(flat)), 'not-supported', /file of its own/],
    [
      'a parent elsewhere',
      [
        { name: 'a.ovf', bytes: Buffer.from(ovfText(childBytes.length)) },
        { name: 'disk 1.vmdk', bytes: childBytes },
      ],
      'not-supported',
      /file of its own/,
    ],
    ['a false digest', [ovf, disk, mf({ 'disk 1.vmdk': Buffer.alloc(1) })], 'damaged', /manifest/],
  ];
  for (const [what, entries, code, about] of rows) {
    await t.test(what, async (t) => {
      writeFileSync(path, tarBytes(entries));
      await checkRefused(t, path, code, about);
    });
  }
  await checkCut(t, path, [ovf, disk]);
  const beside = {
    name: '._a.ovf',
    bytes: Buffer.from('\0\x05\x16\x07\0\x02\0\0Mac OS X', 'latin1'),
  };
  writeFileSync(path, tarBytes([beside, ovf, { ...beside, name: '._disk 1.vmdk' }, disk]));
  await t.resolves(importAll(path), 'what macOS adds is no descriptor');
});

/** A sound archive, cut short and spoilt. */
async function checkCut(t: Test, path: string, members: readonly TarEntry[]): Promise<void> {
  const { name, bytes = Buffer.alloc(0) } = members[1]!;
  const good = tarBytes([{ name: './', type: '5' }, ...members, mf({ [name]: bytes })]);
  writeFileSync(path, good);
  await t.resolves(importAll(path), 'as it is, it is taken');
  for (const length of [0, 100, 512, 1000, 3000, good.length - 4096]) {
    writeFileSync(path, good.subarray(0, length));
    await checkRefused(t, path, 'damaged', /machine\.ova/);
  }
  const spoilt = Buffer.from(good);
  spoilt[512] = 1;
  writeFileSync(path, spoilt);
  await checkRefused(t, path, 'damaged', /checksum/);
}

function mf(members: Readonly<Record<string, Buffer>>): TarEntry {
  return { name: 'a.mf', bytes: Buffer.from(manifestText(members)) };
}

t.test('domains of libvirt', async (t) => {
  const folder = tempFolder(t);
  const path = join(folder, 'machine.xml');
  const domain = (disk: string, rest = '') =>
    `<domain><name>x</name>${rest}<devices>${disk}</devices></domain>`;
  const file = (source: string, inner = '') =>
    `<disk type='file' device='disk'>${inner}<source file='${source}'/></disk>`;
  writeFileSync(join(folder, 'disk.img'), 'QFI\xfb'.padEnd(512), 'latin1');
  const rows: [what: string, text: string, code: string, about: RegExp][] = [
    ['outside', domain(file('/etc/passwd')), 'not-permitted', /outside/],
    ['a block device', domain(`<disk type='block'/>`), 'not-supported', /"block"/],
    ['a network disk', domain(`<disk type='network'/>`), 'not-supported', /"network"/],
    ['a LUN', domain(`<disk type='file' device='lun'/>`), 'not-supported', /"lun"/],
    ['encryption', domain(file(path, '<encryption/>')), 'not-supported', /encrypted/],
    ['a format', domain(file(path, `<driver type='x'/>`)), 'not-supported', /format "x"/],
    ['a unit', domain('', `<memory unit='li'>1</memory>`), 'not-supported', /"li"/],
  ];
  for (const [what, text, code, about] of rows) {
    await t.test(what, async (t) => {
      writeFileSync(path, text);
      await checkRefused(t, path, code, about);
    });
  }
  writeFileSync(path, domain(file(join(folder, 'disk.img'))));
  t.equal(readMachine(path).disks[0]?.image?.format, 'raw', 'never probed where none is given');
});
