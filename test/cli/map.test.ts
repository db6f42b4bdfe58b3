/** `map`: pages of the daemon become one map; files are mapped without it. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { recordingHandlers } from '../control/recording-handlers.js';
import { serve, temporaryFolder } from '../control/socket-fixture.js';
import { stampedModel } from '../support/disk-model.js';
import { writeMonolithic } from '../support/vmdk-writer.js';
import { runBatch, runCli } from './run-cli.js';

const HEADER = 'Offset          Length          Mapped to       File\n';
const FILE = '/store/deltas/0123.data';

t.test('of a VM: asked for page by page, shown as one', async (t) => {
  const { handlers, calls } = recordingHandlers();
  const { path } = await serve(t, handlers);
  const words = ['--socket', path, 'map', 'web@clean', '--disk', 'disk0'];
  const lines = [words, [...words, '--json'], [...words, '-q']];
  const [human, json, names] = await runBatch(lines, temporaryFolder(t));
  t.equal(human?.stdout, `${HEADER}0               0x3000          0x2000          ${FILE}\n`);
  t.strictSame(JSON.parse(json?.stdout ?? ''), [
    {
      ...{ start: 0, length: 12288, depth: 1, present: true, zero: false, data: true },
      ...{ layer: '0123', file: FILE, offset: 8192 },
    },
  ]);
  t.equal(names?.stdout, `${FILE}\n`);
  const asked = { vm: 'web', snapshot: 'clean', disk: 'disk0' };
  t.strictSame(
    calls.slice(0, 3),
    [0, 4096, 8192].map((start) => ({ method: 'map', params: { ...asked, start } })),
  );
});

t.test('of a file: read here, with its parents', async (t) => {
  const folder = temporaryFolder(t);
  const unitSize = 65536;
  const model = (pattern: string) => stampedModel({ size: 262144, unitSize, pattern, salt: 1 });
  const top = join(folder, 'top.vmdk');
  const base = join(folder, 'base.vmdk');
  writeMonolithic(base, model('dddu'), { cid: '00000001' });
  writeMonolithic(top, model('uzdu'), {
    zeroedGrains: true,
    parentCid: '00000001',
    parentName: 'base.vmdk',
  });
  const lines = [
    ['map', 'top.vmdk', '--json'],
    ['map', './top.vmdk', '-q'],
    ['map', top, '--format', 'raw'],
    ['map', top, '--disk', 'disk0'],
    ['map', 'web', '--parent', base],
    ['map', './missing.vmdk'],
    ['map', top, '--format', 'qcow3'],
  ];
  const [json, names, raw, ...refused] = await runBatch(lines, folder);
  t.match(JSON.parse(json?.stdout ?? ''), [
    { start: 0, length: unitSize, depth: 1, data: true, file: base },
    { start: unitSize, depth: 0, present: true, zero: true, data: false },
    { start: 2 * unitSize, depth: 0, data: true, file: top },
    { start: 3 * unitSize, depth: 1, present: false, zero: true, data: false },
  ]);
  t.equal(names?.stdout, `${base}\n${top}\n`);
  t.match(raw?.stdout, new RegExp(`^${HEADER}0 +0x[0-9a-f]+ +0 +${top}\n`));
  t.strictSame(
    refused.map(({ stdout }) => stdout),
    ['', '', '', ''],
  );
  const errors = refused.map(({ stderr }) => stderr);
  t.match(errors[0], /--disk is for VMs/);
  t.match(errors[1], /--parent is for image files/);
  t.match(errors[2], /missing\.vmdk/);
  t.match(errors[3], /qcow3/);
});

t.test('longer than a page, and a file that is no image', async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'all.vmdk');
  // Grains of a sector, each in another place than its neighbours.
  const size = 512 * 4000;
  writeMonolithic(path, stampedModel({ size, unitSize: 512, pattern: 'd', salt: 1 }));
  const all = await runCli(['map', path, '--json']);
  t.equal(JSON.parse(all.stdout).length, 4000);
  writeFileSync(path, 'no longer an image');
  t.equal((await runCli(['map', path])).code, 10, 'refused by name');
});
