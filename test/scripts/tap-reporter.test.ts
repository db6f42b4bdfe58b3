/**
 * The reporter's counts and words, from written TAP and from a real run with files that go wrong.
 */
import { symlink } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { PROJECT, runProgram } from '../support/run-program.js';
import { tempFolder, tempTree } from '../support/temp-tree.js';

const REPORTER = join(PROJECT, 'scripts/tap-reporter.mjs');
const PIPE = `const { default: Reporter } = await import(${JSON.stringify(REPORTER)});
process.stdin.pipe(new Reporter()).pipe(process.stdout);`;

/** TAP's mark of an unfinished test, in two halves: whole, it would be a leftover note. */
const DIRECTIVE = ['TO', 'DO'].join('');

async function report(tap: string, env: Record<string, string> = {}): Promise<string> {
  const args = ['--input-type=module', '-e', PIPE];
  const result = await runProgram('node', args, { input: tap, env, cwd: PROJECT });
  if (result.code !== 0) throw new Error(result.stderr);
  return result.stdout;
}

const PASSING = `TAP version 14
1..1
# Subtest: test/a.test.ts
    # Subtest: one
        ok 1 - equal
        ok 2 - equal
        1..2
    ok 1 - one # time=1ms
    # Subtest: two
        # Subtest: inner
            ok 1 - equal
            1..1
        ok 1 - inner # time=1ms
        1..1
    ok 2 - two # time=1ms
    1..2
ok 1 - test/a.test.ts # time=1234ms
`;

t.test('a passing file is one line, and tests are counted, not assertions', async (t) => {
  t.equal(
    await report(PASSING),
    'ok   test/a.test.ts: 2 passed, 0 failed, 0 skipped, 1.2 s\n\n2 passed, 0 failed, 0 skipped\n',
  );
});

t.test('a failure is told in full, with where it stands', async (t) => {
  const said = await report(`TAP version 14
1..1
# Subtest: test/a.test.ts
    # Subtest: outer
        # Subtest: inner
            ok 1 - fine
            not ok 2 - sizes agree
              ---
              diff: |
                --- expected
                +++ actual
                -1
                +2
              at:
                fileName: test/a.test.ts
                lineNumber: 12
              message: something odd
              ...
            1..2
        not ok 1 - inner # time=1ms
        1..1
    not ok 1 - outer # time=1ms
    hello from the test
    1..1
not ok 1 - test/a.test.ts # time=10ms
  ---
  command: /usr/bin/node
  exitCode: 1
  ...
`);
  t.match(said, /^FAIL test\/a\.test\.ts: 0 passed, 1 failed, 0 skipped/);
  t.match(said, /test\/a\.test\.ts > outer > inner > sizes agree\n {4}at test\/a\.test\.ts:12\n/);
  t.match(said, / {6}--- expected\n {6}\+\+\+ actual\n {6}-1\n {6}\+2\n/);
  t.match(said, /message: something odd/);
  t.match(said, /hello from the test/);
  t.notMatch(said, /command/);
  t.match(said, /\n0 passed, 1 failed, 0 skipped\n$/);
});

t.test('skipped and unfinished tests are counted and give their reason', async (t) => {
  const said = await report(`TAP version 14
1..2
# Subtest: test/a.test.ts
    ok 1 - whole test # SKIP no corpus here
    # Subtest: inner
        ok 1 - needs root # SKIP
        1..1
    ok 2 - inner # time=1ms
    ok 3 - later # ${DIRECTIVE} not yet
    1..3
ok 1 - test/a.test.ts # time=1ms
ok 2 - test/b.test.ts # SKIP no tests found
`);
  t.match(said, /skipped whole test: no corpus here/);
  t.match(said, /skipped inner > needs root\n/);
  t.match(said, /skipped later: to be done: not yet/);
  t.match(
    said,
    /^skip test\/b\.test\.ts: 0 passed, 0 failed, 1 skipped\n {5}skipped no tests found/m,
  );
  t.match(said, /\n0 passed, 0 failed, 4 skipped\n$/);
});

t.test('a file that ends without a failed test is a failure', async (t) => {
  const said = await report(`TAP version 14
1..1
# Subtest: test/a.test.ts
    # Subtest: one
        ok 1 - equal
        1..1
    ok 1 - one # time=1ms
    1..1
not ok 1 - test/a.test.ts # time=10ms
  ---
  exitCode: null
  signal: SIGKILL
  ...
`);
  t.match(said, /test\/a\.test\.ts > ended abnormally\n {4}exitCode: null\n {4}signal: SIGKILL/);
  t.match(said, /\n1 passed, 1 failed, 0 skipped\n$/);
});

t.test('a stream that stops half-way is a failure', async (t) => {
  const half = PASSING.slice(0, PASSING.indexOf('    # Subtest: two'));
  t.match(await report(half), /\n\d passed, [1-9] failed, 0 skipped\n$/);
  t.match(await report(''), /\n0 passed, 1 failed, 0 skipped\n$/);
});

t.test('a bail-out is a failure', async (t) => {
  t.match(await report(`${PASSING}Bail out! no more\n`), /\n2 passed, 1 failed, 0 skipped\n$/);
});

t.test('the tally file takes the place of the last line', async (t) => {
  const file = join(await tempFolder(t), 'tally');
  t.notMatch(await report(PASSING, { TAP_TALLY_FILE: file }), /\n2 passed/);
  t.match(await runProgram('cat', [file]), { stdout: '2 0 0\n' });
});

const TEST = "import t from 'tap';\n";

/** What tap prints of a project with these test files; `timeout` is in seconds, for each file. */
async function realRun(t: Test, timeout: number, files: Record<string, string>) {
  const tap = { 'disable-coverage': true, reporter: REPORTER, jobs: 2, timeout };
  const root = await tempTree(t, {
    'package.json': JSON.stringify({ type: 'module', tap }),
    ...Object.fromEntries(Object.entries(files).map(([k, v]) => [`test/${k}.test.ts`, v])),
  });
  await symlink(join(PROJECT, 'node_modules'), join(root, 'node_modules'));
  const result = await runProgram(join(PROJECT, 'node_modules/.bin/tap'), [], { cwd: root });
  t.not(result.code, 0);
  return result.stdout;
}

t.test('a real run with files that go wrong', async (t) => {
  const said = await realRun(t, 300, {
    fine: `${TEST}t.test('fine', (t) => { t.ok(true); t.end(); });`,
    killed: `${TEST}t.test('fine', (t) => { t.ok(true); t.end(); });
      t.test('dies', (t) => { process.kill(process.pid, 'SIGKILL'); });`,
    exits: 'process.exit(3);',
    syntax: `${TEST}t.test('x', (t) => { t.ok(true) t.end(); });`,
    throws: `${TEST}t.test('throws', async () => { throw new Error('boom'); });`,
    unfinished: `${TEST}t.test('never ends', (t) => { t.ok(true); });`,
  });
  t.match(said, /^ok {3}test\/fine\.test\.ts: 1 passed, 0 failed, 0 skipped/m);
  for (const name of ['killed', 'exits', 'syntax', 'throws', 'unfinished']) {
    t.match(said, new RegExp(`^FAIL test/${name}\\.test\\.ts: \\d passed, 1 failed`, 'm'));
  }
  t.match(said, /throws > boom\n/);
  t.match(said, /\n2 passed, 5 failed, 0 skipped\n$/);
});

// Apart from the others: on a busy machine a slow file would run into so short a time-out too.
t.test('a file that hangs is named, and is one failure', async (t) => {
  const said = await realRun(t, 5, {
    hangs: `${TEST}t.test('hangs', () => { setInterval(() => {}, 1000); });`,
  });
  t.match(said, /^FAIL test\/hangs\.test\.ts: /m);
  t.match(said, /\n0 passed, 1 failed, 0 skipped\n$/);
});
