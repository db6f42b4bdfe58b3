/**
 * The command line among people and pipes: terminals, ctrl-C, progress, readers that leave,
 * completion.
 */
import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import t from 'tap';
import type { CallContext } from '../../src/control/protocol.js';
import { recordingHandlers, SUMMARY } from '../control/recording-handlers.js';
import { serve, temporaryFolder } from '../control/socket-fixture.js';
import { CLI, runCli } from './run-cli.js';

const run = promisify(execFile);

/** Reports progress, then waits to be cancelled. */
async function copyForever(_params: unknown, context: CallContext): Promise<never> {
  context.progress('copying web', 2 ** 20, 2 ** 22);
  return new Promise((_, fail) => {
    context.signal.addEventListener('abort', () => fail(new DOMException('', 'AbortError')));
  });
}

t.test('ctrl-C cancels the request and exits 130', async (t) => {
  let cancelled = false;
  const { handlers } = recordingHandlers({
    clone: (params, context) => {
      context.signal.addEventListener('abort', () => {
        cancelled = true;
      });
      return copyForever(params, context);
    },
  });
  const { path } = await serve(t, handlers);
  let sent = false;
  const result = await runCli(
    ['clone', 'web', 'copy', '--full', '--progress', 'plain', '--socket', path],
    {
      onStderr: (_text, kill) => {
        if (!sent) kill('SIGINT');
        sent = true;
      },
    },
  );
  t.equal(result.code, 130);
  t.equal(result.stdout, '');
  t.match(
    result.stderr,
    /^copying web: 25 % 1 MiB of 4 MiB\nlayerdisk: clone web was cancelled\n$/,
  );
  t.ok(cancelled, 'the daemon was told');
});

t.test('a second ctrl-C does not wait for the daemon', async (t) => {
  const { handlers } = recordingHandlers({
    gc: async (_params, context) => {
      context.progress('sweeping', 1, 2);
      context.signal.addEventListener('abort', () => context.progress('sweeping', 2, 2));
      return new Promise(() => {});
    },
  });
  const { path } = await serve(t, handlers, { closeMs: 10 });
  const result = await runCli(['gc', '--progress', 'plain', '--socket', path], {
    onStderr: (_text, kill) => kill('SIGINT'),
  });
  t.equal(result.code, 130);
  t.notMatch(result.stderr, /layerdisk:/);
});

t.test('no progress without a terminal, unless it is asked for', async (t) => {
  const { handlers } = recordingHandlers({
    gc: async (_params, context) => {
      context.progress('sweeping', 1, 2);
      return { dryRun: false, files: [], bytes: 0 };
    },
  });
  const { path } = await serve(t, handlers);
  t.equal((await runCli(['gc', '--socket', path])).stderr, '');
  const none = await runCli(['gc', '--progress', 'none', '--socket', path], {
    terminal: {},
  });
  t.notMatch(none.stdout, /sweeping/);
  const bar = await runCli(['gc', '--socket', path], { terminal: {} });
  t.match(bar.stdout, `\r\u001b[2K[${'█'.repeat(12)}${'░'.repeat(12)}] sweeping: 50 % 1 B of 2 B`);
  t.match(bar.stdout, '\r\u001b[2Kremoved 0 files', 'and the bar is gone before the result');
});

t.test('a terminal gets colour and box characters, unless refused', async (t) => {
  const { handlers } = recordingHandlers();
  const { path } = await serve(t, handlers);
  const tree = ['tree', '--socket', path];
  const onTerminal = { terminal: {} };
  const fancy = await runCli(tree, onTerminal);
  t.match(fancy.stdout, '\u001b[1mweb\u001b[0m');
  t.match(fancy.stdout, '└── clean');
  t.match(fancy.stdout, '└── \u001b[32m* (current state)\u001b[0m');
  for (const env of [{ NO_COLOR: '1' }, { TERM: 'dumb' }]) {
    const plain = await runCli(tree, { ...onTerminal, env });
    t.notMatch(plain.stdout, '\u001b');
    t.match(plain.stdout, '└── clean');
  }
  t.notMatch((await runCli([...tree, '--no-color'], onTerminal)).stdout, '\u001b');
  const ascii = await runCli(tree, { ...onTerminal, env: { LANG: 'C' } });
  t.match(ascii.stdout, '`-- clean');
});

t.test('restore asks on a terminal', async (t) => {
  const { handlers, calls } = recordingHandlers();
  const { path } = await serve(t, handlers);
  const answer = (answer: string) =>
    runCli(['snapshot', 'restore', 'web@s1', '--socket', path], {
      terminal: { question: '[c]ancel? ', answer },
    });

  const saved = await answer('what?\ns\n');
  t.equal(saved.code, 0);
  t.match(saved.stdout, /loses the current state of web.*\[s\]ave[\s\S]*restored web to s1/);
  const discarded = await answer('discard\n');
  t.equal(discarded.code, 0);
  t.same(
    calls.splice(0).map((call) => call.params),
    [
      { vm: 'web', snapshot: 's1', saveCurrent: true },
      { vm: 'web', snapshot: 's1', discard: true },
    ],
  );
  for (const input of ['c\n', '\u0003', '\u0004']) {
    const refused = await answer(input);
    t.equal(refused.code, 130, JSON.stringify(input));
    t.match(refused.stdout, /nothing was changed: web was not restored/);
  }
  t.same(calls, []);
});

t.test('10,000 VMs are listed, and a reader that leaves early is no error', async (t) => {
  const many = Array.from({ length: 10_000 }, (_, index) => ({
    ...SUMMARY,
    name: `vm-with-a-rather-long-name-${index}`,
  }));
  const { handlers } = recordingHandlers({ list: async () => many });
  const { path } = await serve(t, handlers);
  const all = await runCli(['list', '--json', '--socket', path]);
  t.equal(JSON.parse(all.stdout).length, 10_000);
  const script = 'set -o pipefail; env -u NODE_OPTIONS "$@" list --socket "$0" | head -1';
  const piped = await run('bash', ['-c', script, path, process.execPath, CLI]);
  t.match(piped.stdout, /^NAME/);
  t.equal(piped.stderr, '');
});

t.test('output that cannot be written is an error', async (t) => {
  const { handlers } = recordingHandlers();
  const { path } = await serve(t, handlers);
  const script = 'env -u NODE_OPTIONS "$@" list --socket "$0" > /dev/full';
  const failed = run('bash', ['-c', script, path, process.execPath, CLI]);
  await t.rejects(failed, { code: 1, stderr: /^layerdisk: cannot write the output \(ENOSPC\)\n/ });
  const asJson = run('bash', ['-c', `${script} --json`, path, process.execPath, CLI]);
  const message = 'cannot write the output (ENOSPC)';
  const error = { code: 'failed', message, hint: 'see where it goes' };
  const stderr = `${JSON.stringify({ error })}\n`;
  await t.rejects(asJson, { code: 1, stderr });
});

t.test('bash completes commands, options, VMs and snapshots', async (t) => {
  const { handlers } = recordingHandlers();
  const { path } = await serve(t, handlers);
  const bin = join(temporaryFolder(t), 'bin');
  mkdirSync(bin);
  const program = join(bin, 'layerdisk');
  writeFileSync(
    program,
    `#!/bin/sh\nunset NODE_OPTIONS\nexec '${process.execPath}' '${CLI}' "$@"\n`,
  );
  chmodSync(program, 0o755);
  const env = { PATH: `${bin}:${process.env.PATH}`, LAYERDISK_SOCKET: path, HOME: dirname(bin) };
  symlinkSync(path, join(dirname(bin), 'home.sock'));
  const script = `
    source <(layerdisk completion)
    COMP_LINE="$0" COMP_POINT=\${#0}
    _layerdisk_completions
    printf "%s\\n" "\${COMPREPLY[@]}"`;
  const complete = async (line: string) => {
    const { stdout } = await run('bash', ['-c', script, line], { env });
    return stdout.trim().split('\n');
  };
  t.same(await complete('layerdisk sn'), ['snapshot']);
  t.same(await complete('layerdisk snapshot re'), ['restore', 'rename']);
  t.same(await complete('layerdisk --json li'), ['list']);
  t.same(await complete('layerdisk create web --dis'), ['--disk']);
  t.same(await complete('layerdisk info w'), ['web']);
  t.same(await complete('layerdisk check w'), ['web']);
  t.same(await complete('layerdisk compact w'), ['web']);
  t.same(await complete('layerdisk export --format vdi w'), ['web']);
  t.same(await complete('layerdisk export web w'), [''], 'the shell completes files');
  t.same(await complete('layerdisk rename web w'), [''], 'a new name');
  t.same(await complete('layerdisk disk remove w'), ['web']);
  t.same(await complete('layerdisk disk resize web d'), ['disk0']);
  t.same(await complete('layerdisk snapshot diff web@clean web@'), ['clean', 'later']);
  t.ok((await complete('layerdisk set web --')).includes('--memory'));
  t.same(await complete('layerdisk attach web'), ['web', 'web@clean', 'web@later']);
  t.same(await complete('layerdisk attach web@l'), ['later'], 'bash has cut the word at the @');
  t.same(await complete('layerdisk snapshot delete web@'), ['clean', 'later']);
  t.same(await complete('layerdisk --socket /none info w'), [''], 'no daemon, no names');
  t.same(await complete('layerdisk --socket ~/home.sock info w'), ['web'], 'as typed');
  t.same(await complete('~/bin/layerdisk info w'), ['web']);
});

t.test('completion does not wait for a daemon that hangs', async (t) => {
  const { handlers } = recordingHandlers({ list: () => new Promise(() => {}) });
  const { path } = await serve(t, handlers, { closeMs: 10 });
  const words = ['--get-yargs-completions', 'layerdisk', 'info', 'w'];
  const result = await runCli(words, { env: { LAYERDISK_SOCKET: path } });
  t.equal(result.code, 0);
  t.equal(result.stderr, '');
});
