/** The house-rule checker against small trees that break one rule each. */
import { join } from 'node:path';
import t from 'tap';
import { PROJECT, runProgram } from '../support/run-program.js';
import { tempTree } from '../support/temp-tree.js';

const TIDY = join(PROJECT, 'scripts/tidy.mjs');
const PURPOSE = '/** What this file is for. */\n';
/** Spelled in two halves, or this file would break the rules itself. */
const NOTE = ['TO', 'DO'].join('');

const GOOD: Readonly<Record<string, string>> = {
  'package.json': '{}',
  'package-lock.json': '"resolved": "https://registry.npmjs.org/tap/-/tap-21.8.0.tgz"\n',
  'src/cli/main.ts': `#!/usr/bin/env node\n${PURPOSE}import './list.js';\nconst a = 1;\n`,
  'src/cli/list.ts': `${PURPOSE}export const load = () => import('./lazy.js');\n`,
  'src/cli/lazy.ts': `/**\n * What this file is for,\n * in two lines.\n */\n`,
  'src/daemon/main.ts': `${PURPOSE}new Worker(new URL('./worker.js', import.meta.url));\n`,
  'src/daemon/worker.ts': `${PURPOSE}export type { A } from './types.js';\n`,
  'src/daemon/types.ts': `${PURPOSE}export interface A {}\n`,
  'test/a.test.ts': `${PURPOSE}import './support/x.js';\n`,
  'test/support/x.ts': PURPOSE,
  'scripts/run': '#!/bin/sh\n# Runs the whole thing.\necho\n',
};

function tidy(root: string) {
  return runProgram('node', [TIDY, root], { env: { HOME: '/srv/jdoe' } });
}

t.test('a tree that keeps the rules passes', async (t) => {
  const result = await tidy(await tempTree(t, GOOD));
  t.match(result, { code: 0, stderr: '' });
});

const lines = (count: number) => 'x();\n'.repeat(count);

/** Each: a file, its text, and the line and complaint it must give. */
const OFFENCES: readonly (readonly [string, string, number, RegExp])[] = [
  ['src/cli/file.ts', PURPOSE + lines(400), 401, /file has 401 lines/],
  ['scripts/long', `#!/bin/sh\n# Runs it all.\n${lines(399)}`, 401, /file has 401 lines/],
  ['src/cli/line.ts', `${PURPOSE}// ${'x'.repeat(98)}\n`, 2, /101 columns/],
  [
    'src/cli/function.ts',
    `${PURPOSE}export function big() {\n${lines(59)}}\n`,
    2,
    /big has 61 lines/,
  ],
  ['test/b.test.ts', `${PURPOSE}const big = () => {\n${lines(59)}};\n`, 2, /big has 61 lines/],
  ['src/cli/method.ts', `${PURPOSE}class A {\n  get b() {\n${lines(59)}}\n}\n`, 3, /b has 61/],
  ['src/cli/purpose.ts', 'export const a = 1;\n', 1, /does not open with a comment/],
  ['scripts/purpose', '#!/bin/sh\necho\n', 1, /does not open with a comment/],
  ['src/cli/empty.ts', '/** List. */\n', 1, /does not open with a comment/],
  ['src/vm/old.ts', PURPOSE, 1, /dead file/],
  ['test/support/y.ts', PURPOSE, 1, /dead file/],
  ['src/cli/state.ts', `${PURPOSE}let n = 0;\n`, 2, /module-level mutable state/],
  ['src/cli/note.ts', `${PURPOSE}// ${NOTE}: later\n`, 2, /leftover note/],
  ['src/cli/utils.ts', PURPOSE, 1, /the file name says nothing/],
  ['README.md', `\nsee ${'/home'}/jane/notes\n`, 2, /names somebody's home folder/],
  ['NOTES.md', 'it lies in /srv/jdoe/layerdisk\n', 1, /names your home folder/],
  [
    'package-lock.json',
    '"resolved": "http://mirror.example/tap.tgz"\n',
    1,
    /locked to the host mirror\.example/,
  ],
];

t.test('every offence is named with its file and line', async (t) => {
  const files = Object.fromEntries(OFFENCES.map(([path, text]) => [path, text]));
  const result = await tidy(await tempTree(t, { ...GOOD, ...files }));
  t.equal(result.code, 1);
  const said = result.stderr.split('\n');
  for (const [path, , line, complaint] of OFFENCES) {
    const about = said.filter((text) => text.startsWith(`${path}:${line}: `));
    t.ok(
      about.some((text) => complaint.test(text)),
      `${path}: ${complaint} in: ${about.join(' | ')}`,
    );
  }
});

t.test('what only tests use is dead', async (t) => {
  const root = await tempTree(t, { ...GOOD, 'src/daemon/worker.ts': PURPOSE });
  t.match(await tidy(root), { code: 1, stderr: /src\/daemon\/types\.ts:1: dead file/ });
});

t.test('at the limits it keeps quiet', async (t) => {
  const root = await tempTree(t, {
    ...GOOD,
    'src/cli/list.ts': `${PURPOSE}import './lazy.js';\n${lines(398)}`,
    'src/cli/lazy.ts': `${PURPOSE}function f() {\n${lines(58)}}\n// ${'é'.repeat(97)}\n`,
  });
  t.match(await tidy(root), { code: 0, stderr: '' });
});
