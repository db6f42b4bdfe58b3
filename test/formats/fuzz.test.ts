/**
 * Mutated headers, tables and descriptors of VDI and VMDK images, and noise. LAYERDISK_TRIES=N
 * makes N mutants, dealt out to all of them evenly.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { openImage } from '../../src/formats/registry.js';
import { stampedModel } from '../support/disk-model.js';
import { type FuzzSubject, fuzzImage } from '../support/image-fuzz.js';
import { createRandom, newSeed } from '../support/random.js';
import { tempFolder } from '../support/temp-folder.js';
import { buildVdi } from '../support/vdi-writer.js';
import { buildCowd, buildSeSparse, buildSparse, descriptorText } from '../support/vmdk-writer.js';
import { dealt, Tally, triesOr } from '../torture/tally.js';

const seed = newSeed();
t.comment(`seed ${seed}`);

const small = (pattern: string, unitSize = 4096, units = 24) =>
  stampedModel({ size: unitSize * units, unitSize, pattern, salt: 7 });

const ID = '00000000-0000-4000-8000-00000000000a';

const VDI: readonly FuzzSubject[] = [
  {
    name: 'VDI',
    files: { 'disk.vdi': buildVdi(small('dduz')) },
    main: 'disk.vdi',
    targets: [
      { file: 'disk.vdi', offset: 64, length: 24 },
      { file: 'disk.vdi', offset: 340, length: 52 },
      { file: 'disk.vdi', offset: 512, length: 24 * 4 },
    ],
  },
  {
    name: 'VDI with extra space and a parent',
    files: {
      'top.vdi': buildVdi(small('dduz'), { type: 4, parent: ID, extra: 512 }),
      'base.vdi': buildVdi(small('ddz'), { uuid: ID }),
    },
    main: 'top.vdi',
    targets: [
      { file: 'top.vdi', offset: 64, length: 24 },
      { file: 'top.vdi', offset: 340, length: 132 },
      { file: 'base.vdi', offset: 340, length: 132 },
      { file: 'base.vdi', offset: 512, length: 24 * 4 },
    ],
  },
];

const monolithic = (stream?: 'start' | 'end') => {
  const descriptor = descriptorText({ createType: 'x', extents: ['RW 192 SPARSE "x"'] });
  return buildSparse(small('dud'), {
    descriptor,
    entriesPerTable: 64,
    ...(stream ? { stream } : {}),
  });
};

function tail(file: Buffer, length: number) {
  return { offset: file.length - length, length };
}

const SPLIT = descriptorText({
  createType: 'custom',
  parentCid: 'abc',
  parentName: 'base.vmdk',
  extents: [
    'RW 192 SPARSE "s.vmdk"',
    'RW 8 ZERO',
    'RW 16 FLAT "f.vmdk" 4',
    'RW 192 VMFSSPARSE "c.vmdk"',
    'RW 192 SESPARSE "e.vmdk"',
  ],
});
const BASE = descriptorText({ createType: 'vmfs', cid: 'abc', extents: ['RW 20 VMFS "f.vmdk"'] });

const VMDK: readonly FuzzSubject[] = [
  {
    name: 'monolithicSparse',
    files: { 'disk.vmdk': monolithic() },
    main: 'disk.vmdk',
    targets: [
      { file: 'disk.vmdk', offset: 0, length: 80 },
      { file: 'disk.vmdk', offset: 512, length: 300 },
      { file: 'disk.vmdk', offset: 21 * 512, length: 12 },
      { file: 'disk.vmdk', ...tail(monolithic(), 3 * 512) },
    ],
  },
  ...(['start', 'end'] as const).map((stream) => ({
    name: `streamOptimized, directory at the ${stream}`,
    files: { 'disk.vmdk': monolithic(stream) },
    main: 'disk.vmdk',
    targets: [
      { file: 'disk.vmdk', offset: 0, length: 80 },
      { file: 'disk.vmdk', ...tail(monolithic(stream), 1024) },
      { file: 'disk.vmdk', offset: 128 * 512, length: 4096 },
      { file: 'disk.vmdk', ...tail(monolithic(stream), 10 * 512) },
    ],
  })),
  {
    name: 'split in all kinds, with a parent',
    files: {
      'top.vmdk': Buffer.from(SPLIT),
      'base.vmdk': Buffer.from(BASE),
      's.vmdk': buildSparse(small('dudd')),
      'f.vmdk': small('d', 512, 20).content,
      'c.vmdk': buildCowd(small('dudd')),
      'e.vmdk': buildSeSparse(small('duzd')),
    },
    main: 'top.vmdk',
    targets: [
      { file: 'top.vmdk', offset: 0, length: SPLIT.length },
      { file: 'base.vmdk', offset: 0, length: BASE.length },
      { file: 's.vmdk', offset: 0, length: 80 },
      { file: 'c.vmdk', offset: 0, length: 32 },
      { file: 'c.vmdk', offset: 2048, length: 4 },
      { file: 'c.vmdk', ...tail(buildCowd(small('dudd')), 16384) },
      { file: 'e.vmdk', offset: 0, length: 560 },
      { file: 'e.vmdk', offset: 3 * 512, length: 8 },
      { file: 'e.vmdk', offset: 4 * 512, length: 24 * 8 },
    ],
  },
];

/** The first share is the noise's. */
const [NOISE = 0, ...SHARES] = dealt(triesOr(10_500), 1 + VDI.length + VMDK.length);

t.test('mutants', { timeout: 3_600_000 }, async (t) => {
  const tally = new Tally(t);
  for (const [index, subject] of [...VDI, ...VMDK].entries()) {
    const how = { random: createRandom(seed), rounds: SHARES[index] ?? 0, tally };
    await fuzzImage(t, tempFolder(t), subject, how);
  }
  tally.print();
});

t.test('noise behind every magic, under auto', { timeout: 3_600_000 }, async (t) => {
  const random = createRandom(seed);
  const path = join(tempFolder(t), 'image');
  const magics = [
    '',
    'KDMV',
    'COWD',
    '# Disk DescriptorFile\nversion=1\nCID=1\n',
    '\x7f\x10\xda\xbe',
    'QFI\xfb',
    'vhdxfile',
    'conectix',
  ];
  const tally = new Tally(t);
  for (let round = 0; round < NOISE; round += 1) {
    tally.tried();
    const bytes = random.bytes(random.below(2048));
    const magic = Buffer.from(random.pick(magics), 'latin1');
    magic.copy(bytes, random.pick([0, 0, 64]) % Math.max(1, bytes.length));
    writeFileSync(path, bytes);
    try {
      openImage(path).close();
    } catch (error) {
      if (error instanceof DiskError) continue;
      tally.lost(`noise, seed ${seed}, round ${round}: ${error}`);
    }
  }
  tally.print();
});
