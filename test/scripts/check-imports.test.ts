/** The import checker against small trees that break one rule each. */
import { join } from 'node:path';
import t from 'tap';
import { PROJECT, runProgram } from '../support/run-program.js';
import { tempTree } from '../support/temp-tree.js';

const CHECKER = join(PROJECT, 'scripts/check-imports.mjs');

/** Each: a folder of src/, what a file in it imports, and what must be said about that. */
const OFFENCES: readonly (readonly [string, string, RegExp])[] = [
  ['common', "import { b } from '../engine/layer.js';", /common may not import engine/],
  ['storage', "export * from '../engine/layer.js';", /storage may not import/],
  ['engine', "import '../vm/store.js';", /engine may not import vm\/store/],
  ['transport', "import '../engine/layer.js';", /transport may not import engine\/layer/],
  ['vm', "import '../formats/vdi/vdi.js';", /vm may not import formats\/vdi/],
  ['cli', "const m = await import('../vm/store.js');", /cli may not import vm\/store/],
  ['daemon', "import type { A } from '../cli/main.js';", /daemon may not import cli/],
  ['cli', "type A = import('../vm/store.js').A;", /cli may not import vm\/store/],
  ['control', "new URL('../vm/store.js', import.meta.url);", /control may not import vm\/store/],
  ['formats/vdi', "import '../qcow2/qcow2.js';", /format vdi may not import format qcow2/],
  ['formats/vdi', "import '../registry.js';", /vdi may not import formats\/registry/],
  ['formats/vdi', "import { readSync } from 'node:fs';", /may not import node:fs/],
  ['common', "import { open } from 'node:fs/promises';", /may not import node:fs/],
  ['engine', "import koffi from 'koffi';", /may not import koffi/],
  ['transport', "import f from 'fuse-native';", /may not import fuse-native/],
  ['daemon', "import w from 'winston';", /may not import winston/],
  ['daemon', "import y from 'yargs/helpers';", /may not import yargs/],
  ['engine', "import x from 'left-pad';", /left-pad, which is not in the dependencies/],
  ['engine', "import '../../test/support/x.js';", /lies outside src/],
  ['engine', "import './gone.js';", /there is no src\/engine\/gone\.ts/],
  ['engine/volume', "import '../jobs/merge.js';", /engine\/volume may not import engine\/jobs/],
  ['engine', "import './jobs/merge.js';", /engine may not import engine\/jobs/],
  ['engine/jobs', "import '../local-engine.js';", /only other rooms may import/],
  ['vm/store', "import '../store.js';", /vm\/store may not import vm\/store\.ts/],
  ['magic', "import '../common/units.js';", /magic is no room/],
];

const DOORS = ['koffi', 'fuse-native', 'winston', 'yargs'];

const GOOD: Readonly<Record<string, string>> = {
  'package.json': JSON.stringify({
    dependencies: Object.fromEntries(DOORS.map((name) => [name, '*'])),
  }),
  'src/index.ts': "export * from './vm/store.js';",
  'src/common/units.ts': '',
  'src/common/loop.ts': "import './units.js';",
  'src/storage/libc.ts': "import koffi from 'koffi';\nimport { readSync } from 'node:fs';",
  'src/engine/base.ts': "import type { A } from './layer.js';",
  'src/engine/block-device.ts': '',
  'src/engine/layer.ts': "import './base.js';\nimport { readSync } from 'node:fs';",
  'src/engine/jobs/merge.ts': "import '../layer.js';",
  'src/engine/local-engine.ts': "import './jobs/merge.js';",
  'src/formats/registry.ts': "const load = () => import('./vdi/vdi.js');",
  'src/formats/vdi/vdi.ts': "import './layout.js';\nimport '../../engine/base.js';",
  'src/formats/vdi/layout.ts': "import '../../storage/libc.js';",
  'src/formats/qcow2/qcow2.ts': '',
  'src/vm/store.ts': "import '../formats/registry.js';\nimport '../engine/layer.js';",
  'src/transport/native-channel.ts':
    "import 'fuse-native';\nimport '../storage/libc.js';\nimport '../engine/block-device.js';",
  'src/control/listener.ts': "import { chmodSync } from 'node:fs';",
  'src/daemon/logger.ts': "import winston from 'winston';",
  'src/daemon/main.ts': "import '../vm/store.js';\nimport './logger.js';",
  'src/cli/main.ts': "import yargs from 'yargs';\nimport '../formats/registry.js';",
};

function check(root: string) {
  return runProgram('node', [CHECKER, root]);
}

t.test('a tree that keeps the rules passes', async (t) => {
  const result = await check(await tempTree(t, GOOD));
  t.match(result, { code: 0, stderr: '' });
  t.match(result.stdout, /imports: \d+ files, nothing to report/);
});

t.test('every offence is named with its file and line', async (t) => {
  const files: Record<string, string> = {};
  OFFENCES.forEach(([folder, text], index) => {
    files[`src/${folder}/offender${index}.ts`] = `\n${text}\n`;
  });
  const result = await check(await tempTree(t, { ...GOOD, ...files }));
  t.equal(result.code, 1);
  OFFENCES.forEach(([folder, text, complaint], index) => {
    const place = `src/${folder}/offender${index}.ts:2: `;
    const said = result.stderr.split('\n').filter((line) => line.startsWith(place));
    t.equal(said.length, 1, `${text} gives one line: ${said.join(' | ')}`);
    t.match(said[0], complaint);
  });
});

t.test("the engine's contracts do no I/O", async (t) => {
  const root = await tempTree(t, { ...GOOD, 'src/engine/base.ts': "import 'node:fs';" });
  t.match(await check(root), { code: 1, stderr: /base\.ts:1: may not import node:fs/ });
});

t.test('modules that load each other are named', async (t) => {
  const root = await tempTree(t, { ...GOOD, 'src/common/units.ts': "import './loop.js';" });
  const loop = 'src/common/loop.ts -> src/common/units.ts -> src/common/loop.ts';
  t.match(await check(root), { code: 1, stderr: new RegExp(`import cycle: ${loop}`) });
});

t.test('types and deferred loads make no cycle', async (t) => {
  const root = await tempTree(t, {
    ...GOOD,
    'src/common/units.ts': "import type { A } from './loop.js';\nawait import('./loop.js');",
  });
  t.match(await check(root), { code: 0 });
});

t.test('a dependency that nothing imports is named', async (t) => {
  const root = await tempTree(t, { ...GOOD, 'src/daemon/logger.ts': '' });
  t.match(await check(root), { code: 1, stderr: /package\.json:1: .*winston/ });
});
