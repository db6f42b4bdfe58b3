/** Mutants of every kind of machine file: each is taken or refused with an error of ours. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { readMachine } from '../../src/machines/read-machine.js';
import {
  ovfText,
  tarBytes,
  writeVboxMachine,
  writeVmwareMachine,
} from '../support/machine-writer.js';
import { breathe } from '../support/mutation-fuzz.js';
import { createRandom, newSeed, type Random } from '../support/random.js';
import { tempFolder } from '../support/temp-folder.js';
import { Tally, triesOr } from '../torture/tally.js';

interface Subject {
  /** The file that is mutated. */
  readonly path: string;
  /** The one that is read. */
  readonly main: string;
  readonly sound: Buffer;
  readonly mutate: (sound: Buffer, random: Random) => Buffer;
}

const DOMAIN = `<domain type='kvm'><name>web</name><uuid>1b4e28ba-2fa1-11d2-883f-0016d3cca427</uuid>
  <memory unit='MiB'>300</memory><currentMemory unit='KiB'>307200</currentMemory>
  <vcpu placement='static'>3</vcpu><os><type arch='x86_64' machine='q35'>hvm</type></os>
  <devices>
    <disk type='file' device='disk'><driver name='qemu' type='raw'/>
      <source file='disk.img'/><target dev='vda' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
    <interface type='bridge'><mac address='52:54:00:12:34:56'/><source bridge='br0'/>
      <model type='virtio'/></interface>
  </devices></domain>`;

function subjectsIn(folder: string): Subject[] {
  const vbox = writeVboxMachine(join(folder, 'a')).path;
  const vmx = writeVmwareMachine(join(folder, 'b')).path;
  const ovf = Buffer.from(ovfText(5));
  const disk = { name: 'disk 1.vmdk', bytes: Buffer.from('image') };
  const ova = join(folder, 'c.ova');
  const pax = Buffer.from('20 path=renamed.ovf\n12 mtime=10\n');
  writeFileSync(
    ova,
    tarBytes([
      { name: 'pax', bytes: pax, type: 'x' },
      { name: 'a.ovf', bytes: ovf },
      { name: '././@LongLink', bytes: Buffer.from(disk.name), type: 'L' },
      disk,
    ]),
  );
  mkdirSync(join(folder, 'd'));
  const plain = join(folder, 'd', 'machine.ovf');
  writeFileSync(plain, ovf);
  writeFileSync(join(folder, 'd', disk.name), disk.bytes);
  const domain = join(folder, 'domain.xml');
  writeFileSync(domain, DOMAIN);
  writeFileSync(join(folder, 'disk.img'), Buffer.alloc(512));
  const rows = [
    [vbox, vbox],
    [vmx, vmx],
    [join(folder, 'b', 'machine.vmsd'), vmx],
    [ova, ova],
    [ova, ova, mutateHeaders],
    [plain, plain],
    [domain, domain],
  ] as const;
  return rows.map(([path, main, mutate = mutateText]) => {
    return { path, main, sound: readFileSync(path), mutate };
  });
}

t.test('mutated machine files', { timeout: 3_600_000 }, async (t) => {
  const subjects = subjectsIn(tempFolder(t));
  const seed = newSeed();
  t.comment(`seed ${seed}: LAYERDISK_SEED=${seed} replays it`);
  const random = createRandom(seed);
  const sums = subjects.map(() => ({ taken: 0, refused: 0 }));
  for (const { main } of subjects) t.doesNotThrow(() => readMachine(main), 'sound, it is taken');
  const count = triesOr(1050);
  const tally = new Tally(t);
  for (let round = 0; round < count; round += 1) {
    await breathe(round);
    const { path, main, sound, mutate } = subjects[round % subjects.length]!;
    const outcomes = sums[round % subjects.length]!;
    writeFileSync(path, mutate(sound, random));
    tally.tried();
    try {
      readMachine(main);
      outcomes.taken += 1;
    } catch (error) {
      if (!(error instanceof DiskError) || error.message.includes('\n')) {
        tally.lost(`${path}, seed ${seed}, round ${round}: ${error}`);
        break;
      }
      outcomes.refused += 1;
    }
    writeFileSync(path, sound);
  }
  for (const [index, { taken, refused }] of sums.entries()) {
    const { path } = subjects[index]!;
    t.ok(taken > 0 && refused > 0, `${path}: ${taken} taken, ${refused} refused`);
  }
  tally.print();
});

/** Fields of a tar header: name, size, type, link, magic, prefix. */
const FIELDS = [
  [0, 100],
  [124, 12],
  [156, 1],
  [157, 100],
  [257, 8],
  [345, 155],
] as const;
const DELICATE = ['77777777777', '00000000000', '-1', '1', '\x80', '\xff', '../', '/', '\0', 'x'];

/** Headers of an archive with other fields and checksums that fit, and what extends headers. */
function mutateHeaders(sound: Buffer, random: Random): Buffer {
  const bytes = Buffer.from(sound);
  const headers: number[] = [];
  for (let at = 0; at + 512 <= bytes.length; at += 512) {
    if (bytes.toString('latin1', at + 257, at + 262) === 'ustar') headers.push(at);
  }
  for (let change = 1 + random.below(3); change > 0; change -= 1) {
    const header = random.pick(headers);
    const [start, length] = random.pick(FIELDS);
    const at = header + start + random.below(length);
    const kind = random.below(4);
    if (kind === 0) bytes[at] = random.below(256);
    else if (kind === 1) bytes.write(random.pick([...'01234567LKxgSD5']), header + 156, 'latin1');
    else if (kind === 2) bytes.write(random.pick(DELICATE), header + start, 'latin1');
    else bytes[header + 512 + random.below(64)] = random.pick([0, 10, 32, 49, 61, 255]);
  }
  for (const at of headers) {
    bytes.fill(' ', at + 148, at + 156);
    const sum = bytes.subarray(at, at + 512).reduce((total, byte) => total + byte, 0);
    bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, at + 148);
  }
  return bytes;
}

/** A piece of it gone, doubled, moved or overwritten. */
function mutateText(sound: Buffer, random: Random): Buffer {
  const at = random.below(sound.length);
  const length = 1 + random.below(random.pick([1, 4, 40, 400]));
  const piece = sound.subarray(at, at + length);
  const [before, after] = [sound.subarray(0, at), sound.subarray(at + length)];
  const other = random.below(sound.length);
  return random.pick([
    () => Buffer.concat([before, after]),
    () => Buffer.concat([before, piece, piece, after]),
    () => Buffer.concat([before, sound.subarray(other, other + length), after]),
    () => Buffer.concat([before, random.bytes(length), after]),
    () =>
      Buffer.concat([before, Buffer.from(random.pick(['"', '<', '&', '99999999999', '{}', '=']))]),
  ])();
}
