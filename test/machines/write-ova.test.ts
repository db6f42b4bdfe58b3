/** OVAs that come to nothing: whatever stops the writing, and wherever, nothing is left behind. */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { DiskError } from '../../src/common/errors.js';
import { MiB } from '../../src/common/units.js';
import { ImageBase } from '../../src/formats/base.js';
import { openImage, writingOf } from '../../src/formats/registry.js';
import { checkNotCancelled, type WriteHooks, writeImage } from '../../src/formats/write-image.js';
import { verifyDigests } from '../../src/machines/digests.js';
import { readMachine } from '../../src/machines/read-machine.js';
import { tarMembers } from '../../src/machines/tar-members.js';
import { writeOva } from '../../src/machines/write-ova.js';
import { HostFile } from '../../src/storage/host-file.js';
import { OutputFiles } from '../../src/storage/output-files.js';
import { OutputMember } from '../../src/storage/output-member.js';
import { openDescriptors } from '../conformance/image-suite.js';
import { stampedModel } from '../support/disk-model.js';
import { type Fault, HostFaults } from '../support/host-faults.js';
import { modelSource } from '../support/image-sources.js';
import { tempFolder } from '../support/temp-folder.js';

const SIZE = MiB;
const HARDWARE = { vcpus: 2, memory: 64 * MiB, nics: [] };
const SOURCES = [1, 2].map((salt) =>
  modelSource([stampedModel({ size: SIZE, unitSize: 64 * 1024, pattern: 'd-d', salt })]),
);
/** The disks, as their own places in the archive are told. */
const DISKS = ['web-root.vmdk', 'web-data.vmdk'];

/** An OVA of two disks, made as an export makes it. */
async function write(folder: string, hooks: WriteHooks = {}): Promise<string> {
  const path = join(folder, 'web.ova');
  const outputs = new OutputFiles(path);
  try {
    const output = outputs.create(path);
    const disks = DISKS.map((name, index) => ({
      name,
      capacity: SIZE,
      async write(start: number) {
        const { temporaryPath } = output;
        const place = { archive: path, temporaryPath, start };
        const member = new OutputMember(join(folder, name), place);
        try {
          const options = { virtualSize: SIZE, subformat: 'streamOptimized' };
          await writeImage(SOURCES[index]!, member, writingOf('vmdk')!, options, hooks);
          return await member.measure(async () => checkNotCancelled(hooks));
        } finally {
          member.close();
        }
      },
    }));
    await writeOva(output, { name: 'web', ...HARDWARE, disks });
    outputs.commit();
  } finally {
    outputs.discard();
  }
  return path;
}

t.test('cancelled at every look', async (t) => {
  const descriptors = openDescriptors();
  let looks = 0;
  await write(tempFolder(t), { cancelled: () => ++looks < 0 });
  t.ok(looks > 6, `it is looked at ${looks} times`);
  for (let at = 1; at <= looks; at += 1) {
    const folder = tempFolder(t);
    let asked = 0;
    await t.rejects(write(folder, { cancelled: () => ++asked >= at }), { code: 'interrupted' });
    t.strictSame(readdirSync(folder), [], `nothing is left behind, look ${at}`);
  }
  t.equal(openDescriptors(), descriptors, 'nothing stays open');
});

t.test('each call to the host fails', async (t) => {
  const isOurs = ({ label }: { label: string }) =>
    label.startsWith('image.') && label !== 'image.abandon';
  const faults = new HostFaults(isOurs);
  t.teardown(() => faults.remove());
  const descriptors = openDescriptors();
  faults.record();
  await write(tempFolder(t));
  const labels = [...faults.labels];
  t.ok(labels.includes('image.measure') && labels.includes('image.link'), labels.join(' '));
  const kinds: readonly Fault['kind'][] = ['ENOSPC', 'EIO', 'full'];
  for (const [at, label] of labels.entries()) {
    // What follows the naming of it undoes nothing: it is there, and whole.
    if (label === 'image.unlink' || label === 'image.sync-folder') continue;
    for (const kind of kinds) {
      const folder = tempFolder(t);
      faults.arm({ kind, at, onwards: true });
      const error = await write(folder).then(
        () => undefined,
        (problem: unknown) => problem,
      );
      // What needs no space goes on while a file system is full.
      if (kind === 'full' && faults.failed.length === 0) continue;
      t.ok(error instanceof DiskError, `${kind} at ${label} is told`);
      t.match(error, { code: 'failed', errno: kind === 'EIO' ? 'EIO' : 'ENOSPC' });
      t.match((error as DiskError).message, join(folder, 'web.ova'), 'of the archive');
      t.strictSame(readdirSync(folder), [], `nothing is left behind by ${kind} at ${label} ${at}`);
    }
  }
  t.equal(openDescriptors(), descriptors, 'nothing stays open');
});

t.test('short writes go on', async (t) => {
  const faults = new HostFaults(({ label }) => label === 'image.write');
  t.teardown(() => faults.remove());
  faults.arm({ kind: 'short', at: 0, onwards: true });
  const path = await write(tempFolder(t));
  t.ok(faults.failed.length > 0);
  const file = HostFile.open(path);
  const members = tarMembers(file);
  file.close();
  for (const [index, name] of DISKS.entries()) {
    const window = members.get(name)!;
    const disk = new ImageBase([openImage(path, 'vmdk', { window })]);
    const [shown, expected] = [Buffer.alloc(SIZE), Buffer.alloc(SIZE)];
    disk.readAt(shown, 0, 0, SIZE);
    SOURCES[index]!.readAt(expected, 0, 0, SIZE);
    disk.close();
    t.ok(shown.equals(expected), name);
  }
  await verifyDigests(readMachine(path).digests);
});
