/**
 * Real guests for tests: a Debian kernel with a busybox initramfs that this file builds, whose
 * console is a shell that tests type into.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { Test } from 'tap';
import { type CpioEntry, cpioArchive } from './cpio.js';
import type { TestDaemon } from './daemon.js';
import { cannotServe } from './mount-guard.js';
import { cleanEnvironment, PROJECT } from './run-program.js';

const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'layerdisk-test');
/** Filled by scripts/guest-packages. */
const PARTS = join(CACHE, 'guest');
const CLI = join(PROJECT, 'dist/cli/main.js');
const PATIENCE_MS = 180_000;

/** Why no guest can be booted here; false where one can. For a test's `skip`. */
export function cannotBoot(): string | false {
  const cannot = cannotServe();
  if (cannot !== false) return cannot;
  if (spawnSync('qemu-system-x86_64', ['--version']).status !== 0) {
    return 'qemu-system-x86_64 is not installed';
  }
  if (!existsSync(join(PARTS, 'complete'))) return 'no kernel for guests: scripts/guest-packages';
  return false;
}

/**
 * PID 1: loads the drivers, then does what is typed on the console, one line after the other.
 * `acpid` makes the power button what it is.
 */
const INIT = `#!/bin/sh
export PATH=/bin:/sbin
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
# Which of them needs which is not the same in every kernel.
for round in 1 2 3; do for module in /modules/*; do insmod $module 2>/dev/null; done; done
mkdir -p /mnt /tmp /run /var/run /var/log /etc/acpi/PWRF
printf '#!/bin/sh\\nsync; umount /mnt 2>/dev/null; poweroff -f\\n' >/etc/acpi/PWRF/00000080
chmod +x /etc/acpi/PWRF/00000080
acpid -f >/dev/null 2>&1 &
stty -echo
echo '@ready'
while read -r line; do eval "$line"; done
poweroff -f
`;

/** The initramfs, built once for each content. */
function initramfs(): string {
  const entries: CpioEntry[] = ['bin', 'dev', 'proc', 'sys', 'modules', 'etc'].map((name) => ({
    name,
    folder: true,
  }));
  const add = (name: string, from: string) => entries.push({ name, data: readFileSync(from) });
  add('bin/busybox', join(PARTS, 'busybox'));
  entries.push({ name: 'bin/sh', link: 'busybox' });
  for (const name of readdirSync(join(PARTS, 'modules')).sort()) {
    add(`modules/${name}`, join(PARTS, 'modules', name));
  }
  addProgram(entries, 'bin/qemu-ga', join(PARTS, 'qemu-ga'));
  entries.push({ name: 'init', data: Buffer.from(INIT) });
  const archive = cpioArchive(entries);
  const hash = createHash('sha256').update(archive).digest('hex').slice(0, 16);
  const path = join(CACHE, `initramfs-${hash}.gz`);
  if (!existsSync(path)) {
    const temporary = `${path}.${process.pid}`;
    writeFileSync(temporary, gzipSync(archive, { level: 1 }));
    renameSync(temporary, path);
  }
  return path;
}

/** A program with the libraries of this host that it needs. */
function addProgram(entries: CpioEntry[], name: string, from: string): void {
  entries.push({ name, data: readFileSync(from) });
  const listed = execFileSync('ldd', [from], { encoding: 'utf8' });
  const folders = new Set<string>();
  for (const [, path = ''] of listed.matchAll(/(\/\S+) \(0x/g)) {
    for (let folder = dirname(path); folder !== '/'; folder = dirname(folder)) {
      folders.add(folder.slice(1));
    }
    entries.push({ name: path.slice(1), data: readFileSync(realpathSync(path)) });
  }
  // Before what lies in them.
  for (const folder of [...folders].sort().reverse())
    entries.unshift({ name: folder, folder: true });
}

/** What `layerdisk run VM --` is given besides, to boot the test's kernel. */
export function bootArguments(): string[] {
  mkdirSync(CACHE, { recursive: true });
  return [
    ...['-kernel', join(PARTS, 'vmlinuz'), '-initrd', initramfs()],
    ...['-append', 'console=ttyS0 quiet panic=-1 no_timer_check', '-no-reboot'],
  ];
}

/** A guest that runs in the foreground of a `layerdisk run`. */
export class TestGuest {
  readonly #child: ChildProcess;
  readonly ended: Promise<number | null>;
  output = '';

  private constructor(child: ChildProcess) {
    this.#child = child;
    const note = (chunk: Buffer) => {
      this.output += chunk.toString('utf8');
    };
    child.stdout?.on('data', note);
    child.stderr?.on('data', note);
    child.stdin?.on('error', () => {});
    this.ended = new Promise((resolve) => child.once('close', (code) => resolve(code)));
  }

  /** Boots a VM and waits for its shell. It is gone when `t` ends. */
  static async boot(t: Test, daemon: TestDaemon, vm: string): Promise<TestGuest> {
    const guest = TestGuest.#start(t, daemon, [vm, '--', ...bootArguments()]);
    await guest.waitFor(/@ready/);
    return guest;
  }

  /** Goes on with a VM whose memory was restored, and waits for its shell. */
  static async resume(t: Test, daemon: TestDaemon, vm: string): Promise<TestGuest> {
    const guest = TestGuest.#start(t, daemon, [vm]);
    await guest.waitFor(/goes on with the memory/);
    return guest;
  }

  static #start(t: Test, daemon: TestDaemon, words: readonly string[]): TestGuest {
    const [vm = ''] = words;
    const args = [CLI, 'run', ...words];
    const child = spawn('env', ['-u', 'NODE_OPTIONS', 'node', ...args], {
      env: cleanEnvironment({ LAYERDISK_STORE: daemon.store, LAYERDISK_SOCKET: daemon.socket }),
      stdio: 'pipe',
    });
    const guest = new TestGuest(child);
    t.teardown(async () => {
      await daemon.cli(['stop', vm, '--force']);
      child.kill('SIGKILL');
      await guest.ended;
    });
    return guest;
  }

  /** Connects to a guest that runs detached, by `layerdisk console` on a terminal of its own. */
  static async connect(t: Test, daemon: TestDaemon, vm: string): Promise<TestGuest> {
    const command = `env -u NODE_OPTIONS node ${CLI} console ${vm}`;
    const child = spawn('script', ['-qec', command, '/dev/null'], {
      env: cleanEnvironment({ LAYERDISK_STORE: daemon.store, LAYERDISK_SOCKET: daemon.socket }),
      stdio: 'pipe',
    });
    const guest = new TestGuest(child);
    t.teardown(async () => {
      child.kill('SIGKILL');
      await guest.ended;
    });
    await guest.waitFor(/ctrl-\] leaves/);
    return guest;
  }

  /** Types a key. */
  press(key: string): void {
    this.#child.stdin?.write(key);
  }

  /** Types a line on the console. */
  type(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  /** Runs a command in the guest and answers what it printed. */
  async ask(command: string): Promise<string> {
    const from = this.output.length;
    this.type(command);
    this.type("echo '@''done'");
    await this.waitFor(/@done/, from);
    const said = this.output.slice(from);
    return said.slice(0, said.indexOf('@done')).replaceAll('\r', '').trim();
  }

  /** @throws Error with all that the guest said, when it ends or takes too long. */
  async waitFor(pattern: RegExp, from = 0): Promise<void> {
    const end = Date.now() + PATIENCE_MS;
    let over = false;
    void this.ended.then(() => {
      over = true;
    });
    while (!pattern.test(this.output.slice(from))) {
      if (over || Date.now() > end) {
        throw new Error(`the guest never said ${pattern}:\n${this.output}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }
}
