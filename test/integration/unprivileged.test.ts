/**
 * The whole job as an ordinary user, through fusermount3: what works, what needs root and says so,
 * and what others can get at, which is nothing. In a mount namespace, where /dev/fuse is open to
 * users as udev leaves it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chownSync, mkdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { CliResult } from '../support/daemon.js';
import { cannotServe } from '../support/mount-guard.js';
import { DROP_LOOP_COPIES } from '../support/mount-namespace.js';
import { checkRefusal, EXIT } from '../support/refusal.js';
import {
  cleanEnvironment,
  PROJECT,
  type ProgramResult,
  runProgram,
} from '../support/run-program.js';

const CLI = join(PROJECT, 'dist/cli/main.js');
/** Debian's `nobody` and `daemon`: fusermount3 wants users that have a name. */
const USER = 65534;
const STRANGER = 1;
const KiB = 1024;

class UserSpace {
  readonly folder: string;
  readonly #holder: number;

  private constructor(folder: string, holder: number) {
    this.folder = folder;
    this.#holder = holder;
  }

  static async open(t: Test): Promise<UserSpace> {
    const folder = await mkdtemp(join(tmpdir(), 'layerdisk-user-'));
    const device = `${folder}.fuse`;
    const script =
      `${DROP_LOOP_COPIES}; ` +
      'mknod -m 666 "$0" c 10 229 && mount --bind "$0" /dev/fuse && rm "$0" && ' +
      'chown "$1" "$2" && echo ready && exec sleep 3600';
    const command = ['-m', '--propagation', 'private', 'sh', '-c', script];
    const holder = spawn('unshare', [...command, device, String(USER), folder], {
      env: cleanEnvironment(),
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const space = new UserSpace(folder, holder.pid!);
    t.teardown(async () => {
      if (holder.exitCode === null) {
        await space.cli('daemon', 'stop');
        holder.kill('SIGKILL');
        await once(holder, 'exit');
      }
      await rm(folder, { recursive: true, force: true });
    });
    await once(holder.stdout, 'data');
    return space;
  }

  in(...names: string[]): string {
    return join(this.folder, ...names);
  }

  /** The raw file of a VM's disk. */
  raw(vm: string): string {
    return this.in('run', 'layerdisk', 'mnt', vm, 'disk0.raw');
  }

  /** Runs a program as somebody inside. */
  as(uid: number, command: readonly string[], extra: Record<string, string> = {}) {
    const places = {
      HOME: this.in('home'),
      XDG_RUNTIME_DIR: this.in('run'),
      XDG_DATA_HOME: this.in('data'),
      TMPDIR: this.in('tmp'),
      ...extra,
    };
    const env = Object.entries(places).map(([name, value]) => `${name}=${value}`);
    const who = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups'];
    const inside = ['-t', String(this.#holder), '-m', 'setpriv', ...who, 'env', ...env];
    return runProgram('nsenter', [...inside, ...command]);
  }

  async cli(...args: string[]): Promise<CliResult> {
    return answer(await this.as(USER, ['node', CLI, ...args]));
  }

  async ok(t: Test, ...args: string[]): Promise<string> {
    const result = await this.cli(...args);
    t.equal(result.code, 0, `layerdisk ${args.join(' ')}: ${result.stderr}`);
    return result.stdout.trimEnd();
  }

  async tool(t: Test, ...command: string[]): Promise<string> {
    const result = await this.as(USER, command);
    t.equal(result.code, 0, `${command.join(' ')}: ${result.stderr}`);
    return result.stdout;
  }

  /** Mounts below the folder, inside. */
  async mounts(): Promise<string> {
    const { stdout } = await this.as(USER, ['grep', '-F', this.folder, '/proc/mounts']);
    return stdout;
  }
}

function answer(result: ProgramResult): CliResult {
  return { ...result, json: () => JSON.parse(result.stdout) };
}

async function checkWork(t: Test, space: UserSpace): Promise<void> {
  await space.ok(t, 'daemon', 'start');
  t.match(await space.mounts(), /fuse\.layerdisk rw,nosuid,nodev.*user_id=65534/);
  await space.ok(t, 'create', 'vm', '--disk', '16M');
  const raw = space.raw('vm');
  await space.tool(t, 'mkfs.ext4', '-q', '-F', raw);
  await space.ok(t, 'snapshot', 'take', 'vm@one');
  await space.tool(t, 'dd', 'if=/dev/zero', `of=${raw}`, 'bs=1M', 'count=4', 'conv=notrunc,fsync');
  t.not((await space.as(USER, ['e2fsck', '-fn', raw])).code, 0);
  await space.ok(t, 'snapshot', 'restore', 'vm@one', '--discard');
  await space.tool(t, 'e2fsck', '-fn', raw);
  await space.ok(t, 'clone', 'vm@one', 'linked', '--linked');
  await space.ok(t, 'clone', 'vm@one', 'full', '--full');
  await space.tool(t, 'cmp', raw, space.raw('linked'));
  await space.ok(t, 'export', 'vm', space.in('out.qcow2'));
  await space.ok(t, 'import', space.in('out.qcow2'), 'again');
  await space.tool(t, 'cmp', raw, space.raw('again'));
  await space.ok(t, 'daemon', 'restart');
  t.equal(await space.ok(t, 'list', '-q'), 'again\nfull\nlinked\nvm');
}

async function checkNeedsRoot(t: Test, space: UserSpace): Promise<void> {
  const rows = [
    ['mount', 'vm', space.in('home')],
    ['attach', 'vm'],
    ['reset-identity', 'vm'],
    ['clone', 'vm', 'other', '--full', '--reset-identity'],
  ];
  for (const args of rows) {
    checkRefusal(t, await space.cli(...args), [EXIT.notPermitted], /root/);
  }
}

async function checkOthers(t: Test, space: UserSpace): Promise<void> {
  const stranger = (...command: string[]) => space.as(STRANGER, command);
  // The user's own folder would keep strangers out already.
  await space.tool(t, 'chmod', '755', space.folder, space.in('run'), space.in('data'));
  for (const path of [
    space.raw('vm'),
    space.in('out.qcow2'),
    space.in('data', 'layerdisk', 'store.json'),
    space.in('data', 'layerdisk', 'daemon.log'),
  ]) {
    t.match(await stranger('cat', path), { code: 1, stderr: /denied/ }, path);
  }
  const socket = space.in('run', 'layerdisk', 'control.sock');
  const nowhere = { HOME: '/nonexistent' };
  const list = ['node', CLI, 'list', '--socket', socket];
  const ask = async () => answer(await space.as(STRANGER, list, nowhere));
  checkRefusal(t, await ask(), [EXIT.notPermitted], /control\.sock/);
  const facts = statSync(socket);
  t.same([facts.uid, facts.mode & 0o777], [USER, 0o660]);
  t.equal(statSync(space.in('run', 'layerdisk')).mode & 0o777, 0o700, 'nobody else gets there');
  await space.tool(t, 'chmod', '755', space.in('run', 'layerdisk'));
  checkRefusal(t, await ask(), [EXIT.notPermitted], /another user/);
  const root = await space.as(0, ['cat', space.raw('vm')]);
  t.match(root, { code: 1, stderr: /denied/ }, 'not even root sees the mount');
}

/** Root may ask a user's daemon, and what he did must not be in the user's way afterwards. */
async function checkRootIsNotInTheWay(t: Test, space: UserSpace): Promise<void> {
  const socket = space.in('run', 'layerdisk', 'control.sock');
  const root = async (...args: string[]) =>
    answer(await space.as(0, ['node', CLI, ...args, '--socket', socket]));
  const run = await root('run', 'vm', '--detach', '--accel', 'tcg');
  checkRefusal(t, run, [EXIT.notPermitted], /daemon is uid 65534's/);
  await root('reset-identity', 'vm');
  await space.ok(t, 'rename', 'vm', 'other');
  await space.ok(t, 'rename', 'other', 'vm');
}

/** What a user could try to gain by a daemon of theirs: files that only root may read or write. */
async function checkGainsNothing(t: Test, space: UserSpace): Promise<void> {
  const secret = join(tmpdir(), `layerdisk-secret-${process.pid}`);
  writeFileSync(secret, 'of root'.padEnd(4 * KiB, '.'), { mode: 0o600 });
  t.teardown(() => rm(secret, { force: true }));
  const vault = `${secret}.d`;
  mkdirSync(vault, { mode: 0o700 });
  t.teardown(() => rm(vault, { recursive: true, force: true }));
  const locked = await space.cli('export', 'vm', join(vault, 'x.raw'));
  checkRefusal(t, locked, [EXIT.notPermitted], /x\.raw.*EACCES/);
  const before = statSync(secret);
  const link = space.in('home', 'link.raw');
  await space.tool(t, 'ln', '-s', secret, link);
  const imported = await space.cli('import', link, 'stolen');
  checkRefusal(t, imported, [EXIT.notPermitted, EXIT.failed], /link\.raw|secret/);
  const force = await space.cli('export', 'vm', link, '--force');
  t.not(readFileSync(secret, 'utf8').slice(0, 7), '', 'it is there');
  t.equal(readFileSync(secret, 'utf8').slice(0, 7), 'of root', `export: ${force.stderr}`);
  t.same([statSync(secret).ino, statSync(secret).mtimeMs], [before.ino, before.mtimeMs]);

  // A manifest that was edited by hand, a store that is full of links.
  await space.ok(t, 'daemon', 'stop');
  t.equal(await space.mounts(), '', 'nothing stays mounted');
  const folder = space.in('data', 'layerdisk');
  const [data = ''] = (await space.tool(t, 'sh', '-c', `cd ${folder}/deltas; ls -S *.data`)).split(
    '\n',
  );
  await space.tool(t, 'ln', '-sf', secret, join(folder, 'deltas', data));
  await space.tool(t, 'ln', '-sf', secret, join(folder, 'vms', 'full.json'));
  await space.ok(t, 'daemon', 'start');
  const list = await space.ok(t, 'list');
  t.match(list, /full: cannot be used/);
  t.notMatch(list, /of root/);
  const reads = await Promise.all(
    ['vm', 'linked', 'full', 'again'].map((vm) => space.as(USER, ['cat', space.raw(vm)])),
  );
  for (const { stdout } of reads) t.notMatch(stdout, /of root/);
  t.equal(readFileSync(secret, 'utf8').slice(0, 7), 'of root');
  await space.ok(t, 'daemon', 'stop');
}

async function checkPlacesOfOthers(t: Test, space: UserSpace): Promise<void> {
  const start = async (extra: Record<string, string>, ...args: string[]) =>
    answer(await space.as(USER, ['node', CLI, 'daemon', 'start', ...args], extra));
  const theirs = space.in('theirs');
  mkdirSync(theirs, { mode: 0o755 });
  checkRefusal(t, await start({ XDG_DATA_HOME: theirs }), [EXIT.notPermitted], /theirs/);
  checkRefusal(t, await start({ XDG_RUNTIME_DIR: theirs }), [EXIT.notPermitted, 1], /theirs/);
  const locked = space.in('locked');
  mkdirSync(locked, { mode: 0o700 });
  checkRefusal(t, await start({}, '--store', locked), [EXIT.notPermitted], /locked\/daemon\.log/);
  symlinkSync(theirs, space.in('link'));
  checkRefusal(t, await start({ XDG_DATA_HOME: space.in('link') }), [EXIT.notPermitted], /link/);
  // fusermount3 mounts on what the user owns, however the path is spelt.
  symlinkSync('/etc', space.in('etc'));
  const mount = await start({}, '--mountpoint', space.in('etc'));
  checkRefusal(t, mount, [EXIT.notPermitted, EXIT.failed, EXIT.exists, EXIT.busy], /etc/);
  const allow = await start({}, '--allow-other');
  if (allow.code === 0) {
    t.match(readFileSync('/etc/fuse.conf', 'utf8'), /^user_allow_other/m);
    await space.ok(t, 'daemon', 'stop');
  } else {
    checkRefusal(t, allow, [EXIT.notPermitted], /allow_other/);
  }
  t.equal(await space.mounts(), '', 'nothing was mounted anywhere');
}

/** As a store that root has used, or restored from a backup. */
async function checkFilesOfOthers(t: Test, space: UserSpace): Promise<void> {
  const store = space.in('data', 'layerdisk');
  for (const name of ['lock', 'store.json', 'deltas']) {
    const path = join(store, name);
    const { uid, gid } = statSync(path);
    chownSync(path, 0, 0);
    const start = answer(await space.as(USER, ['node', CLI, 'daemon', 'start']));
    checkRefusal(t, start, [EXIT.notPermitted], new RegExp(`layerdisk/${name}.*EACCES`));
    t.match(start.stderr, /hint: run as the owner of the store's files/);
    chownSync(path, uid, gid);
  }
  await space.ok(t, 'daemon', 'start');
  await space.ok(t, 'daemon', 'stop');
}

t.test('an ordinary user', { skip: cannotServe() }, async (t) => {
  const space = await UserSpace.open(t);
  const names = ['home', 'run', 'data', 'tmp'].map((name) => space.in(name));
  await space.tool(t, 'mkdir', '-m', '700', ...names);
  await t.test('does the whole job', (t) => checkWork(t, space));
  await t.test('is told what needs root', (t) => checkNeedsRoot(t, space));
  await t.test('is alone with the disks', (t) => checkOthers(t, space));
  await t.test('may ask root', (t) => checkRootIsNotInTheWay(t, space));
  await t.test('gains nothing', (t) => checkGainsNothing(t, space));
  await t.test('is refused the places of others', (t) => checkPlacesOfOthers(t, space));
  await t.test('is told of files of others in the store', (t) => checkFilesOfOthers(t, space));
});
