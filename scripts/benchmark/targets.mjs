/** What is measured: layerdisk at some depth, its peers, and the limits, each as one file. */
import { execFile, spawn } from 'node:child_process';
import { mkdir, open, readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { connectTo } from './rpc.mjs';

const exec = promisify(execFile);
const CLI = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
const LIMIT_SOURCE = fileURLToPath(new URL('limit.c', import.meta.url));
export const MiB = 1024 * 1024;
/** In a second; what an idle daemon takes is less. */
const IDLE_TICKS = 4;
/** What each layer of a chain holds: this many writes at random places. */
const WRITES_A_LAYER = 48;

export async function command(name, ...args) {
  const { stdout } = await exec(name, args, { maxBuffer: 64 * MiB });
  return stdout.trim();
}

/** Everything that a run started, ended in reverse order. */
export class Workbench {
  #ends = [];

  /** @param {string} folder scratch space, which the caller removes. */
  constructor(folder, { sizeMib, threads }) {
    this.folder = folder;
    this.sizeMib = sizeMib;
    this.threads = threads;
  }

  atEnd(task) {
    this.#ends.push(task);
  }

  async close() {
    const failures = [];
    // One that ended by itself, of the same signal perhaps, keeps nothing else alive.
    for (const task of this.#ends.splice(0).reverse()) {
      await task().catch((error) => failures.push(error));
    }
    if (failures.length > 0) throw failures[0];
  }

  /**
   * A daemon on a store of its own.
   * @returns {Promise<{words: string[], run: (...args: string[]) => Promise<string>, call: (method:
   *   string, params?: object) => Promise<any>, start: () => Promise<string>}>} the beginning of a
   *   command line, and it run, and the socket.
   */
  async daemon(name, ...options) {
    const store = join(this.folder, name);
    const socket = `${store}.sock`;
    const words = ['node', CLI, '--store', store, '--socket', socket];
    const run = (...args) => command(...words, ...args);
    const mountpoint = join(this.folder, `${name}-mnt`);
    const start = () => run('daemon', 'start', '--mountpoint', mountpoint, ...options);
    await start();
    const client = await connectTo(socket);
    this.atEnd(async () => {
      client.close();
      await run('daemon', 'stop');
    });
    return { words, run, start, call: client.call };
  }

  /**
   * Waits until our daemons have done what they do behind a snapshot's back: checksums, reclaiming.
   */
  async settled() {
    let before = await cpuTicks(this.folder);
    for (let tries = 0; tries < 60; tries += 1) {
      await sleep(1000);
      const now = await cpuTicks(this.folder);
      if (now - before < IDLE_TICKS) return;
      before = now;
    }
    console.log('note: the daemons did not come to rest within a minute');
  }

  /**
   * One of our disks: filled, then `depth - 1` snapshots with writes of `writeBytes` on each.
   * @returns {Promise<{name: string, file: string}>}
   */
  async layerdisk(daemon, vm, { depth = 1, writeBytes = 64 * 1024 } = {}) {
    await daemon.call('create', { vm, disks: [{ size: this.sizeMib * MiB }] });
    const { path: file } = await daemon.call('path', { vm });
    await fill(file, this.sizeMib);
    for (let layer = 1; layer < depth; layer += 1) {
      await daemon.call('snapshot.take', { vm, snapshot: `s${layer}` });
      await scatter(file, this.sizeMib, writeBytes);
    }
    const { pid } = await daemon.call('daemon.status');
    return { name: `layerdisk, depth ${depth}`, file, pid, isOurs: true };
  }

  /** A raw file with random content on the host's file system. */
  async raw(name = 'raw') {
    const file = join(this.folder, `${name}.img`);
    await command('truncate', '-s', `${this.sizeMib}M`, file);
    await fill(file, this.sizeMib);
    return { name: 'raw file, no FUSE', file };
  }

  /** The minimal C daemon over a raw file. */
  async limit() {
    const program = join(this.folder, 'limit');
    await command('gcc', '-O2', '-pthread', '-o', program, LIMIT_SOURCE);
    const { file } = await this.raw('limit');
    const mountpoint = join(this.folder, 'limit-mnt');
    await mkdir(mountpoint);
    const child = this.#start(program, file, mountpoint, String(this.threads));
    this.atEnd(() => unmounted(mountpoint, child));
    const shown = join(mountpoint, 'disk');
    await appears(shown, this.sizeMib * MiB);
    return { name: 'C daemon (limit)', file: shown, pid: child.pid };
  }

  /** QEMU's storage daemon with its FUSE export, over raw or a chain of qcow2 images. */
  async qemu({ format = 'raw', depth = 1 } = {}) {
    const name = `qemu-${format}-${depth}`;
    const image = format === 'raw' ? (await this.raw(name)).file : await this.#qcow2(name, depth);
    const { file, end } = await this.#export(name, format, image);
    this.atEnd(end);
    const what = format === 'raw' ? 'raw' : `qcow2, depth ${depth}`;
    return { name: `QEMU FUSE, ${what}`, file };
  }

  /** nbdkit's file plugin shown by nbdfuse. */
  async nbdfuse() {
    const { file } = await this.raw('nbdfuse');
    const mountpoint = join(this.folder, 'nbdfuse-mnt');
    await mkdir(mountpoint);
    const child = this.#start('nbdfuse', mountpoint, '--command', 'nbdkit', '-s', 'file', file);
    this.atEnd(() => unmounted(mountpoint, child));
    const shown = join(mountpoint, 'nbd');
    await appears(shown, this.sizeMib * MiB);
    return { name: 'nbdkit + nbdfuse', file: shown };
  }

  /** A loop device over a target's file. */
  async loop(target, { directIo }) {
    const options = directIo ? ['--direct-io=on'] : [];
    const device = await command('losetup', '--find', '--show', ...options, target.file);
    this.atEnd(() => command('losetup', '--detach', device));
    const how = directIo ? 'loop, direct-io' : 'loop';
    return { name: `${target.name}, ${how}`, file: device };
  }

  /** A fresh linked clone. */
  async clone(daemon, snapshot, name) {
    const [vm, label] = snapshot.split('@');
    await daemon.call('clone', { vm, snapshot: label, name, mode: 'linked' });
    const { path: file } = await daemon.call('path', { vm: name });
    const info = () => daemon.call('info', { vm: name });
    return {
      file,
      takenBytes: async () => (await info()).disks[0].headBytes,
      end: () => daemon.call('delete', { vm: name }),
    };
  }

  /** A fresh qcow2 image on a raw one, shown by QEMU. */
  async overlay(base, name, options) {
    const image = join(this.folder, `${name}.qcow2`);
    const below = ['-b', base, '-F', 'raw', '-o', options];
    await command('qemu-img', 'create', '-q', '-f', 'qcow2', ...below, image);
    const { file, end } = await this.#export(name, 'qcow2', image);
    const takenBytes = async () => (await stat(image)).blocks * 512;
    return { file, takenBytes, end };
  }

  async #qcow2(name, depth) {
    const path = (layer) => join(this.folder, `${name}-${layer}.qcow2`);
    await command('qemu-img', 'create', '-q', '-f', 'qcow2', path(1), `${this.sizeMib}M`);
    await writeByQemu(path(1), [[0, this.sizeMib * MiB]]);
    for (let layer = 2; layer <= depth; layer += 1) {
      const below = ['-b', path(layer - 1), '-F', 'qcow2'];
      await command('qemu-img', 'create', '-q', '-f', 'qcow2', ...below, path(layer));
      await writeByQemu(path(layer), randomPlaces(this.sizeMib, 64 * 1024));
    }
    return path(depth);
  }

  async #export(name, format, image) {
    // The export is a file: it is mounted on an existing one.
    const file = join(this.folder, `${name}-export`);
    await writeFile(file, '');
    const blockdev = `driver=${format},node-name=disk,file.driver=file,file.filename=${image}`;
    const child = this.#start(
      ...['qemu-storage-daemon', '--blockdev', blockdev],
      ...['--export', `type=fuse,id=e,node-name=disk,mountpoint=${file},writable=on`],
    );
    await appears(file, this.sizeMib * MiB);
    const end = async () => {
      child.kill('SIGTERM');
      await child.ended;
    };
    return { file, end };
  }

  #start(program, ...args) {
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
    child.ended = new Promise((resolve) => {
      child.on('exit', resolve);
      child.on('error', resolve);
    });
    return child;
  }
}

/** CPU time of the processes that were started on a folder, in ticks of 10 ms. */
async function cpuTicks(folder) {
  let ticks = 0;
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const words = await readFile(`/proc/${name}/cmdline`, 'utf8');
      if (!words.includes(folder)) continue;
      ticks += await ticksOf(name);
    } catch (error) {
      // Ended meanwhile.
      if (error.code !== 'ENOENT' && error.code !== 'ESRCH') throw error;
    }
  }
  return ticks;
}

/** CPU time that a process has taken so far, in ticks of 10 ms. */
export async function ticksOf(pid) {
  const { program, kernel } = await cpuTimeOf(pid);
  return program + kernel;
}

/** The same apart: in the program itself and in the kernel for it. */
export async function cpuTimeOf(pid) {
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1].split(' ');
  return { program: Number(fields[11]), kernel: Number(fields[12]) };
}

/** Unmounts by path, and waits for the process that served it. */
async function unmounted(mountpoint, child) {
  await command('umount', mountpoint);
  await child.ended;
}

/** Waits until the file has the size of the disk: the mount is there. */
async function appears(file, size) {
  for (let tries = 0; tries < 200; tries += 1) {
    const found = await stat(file).catch((error) => {
      if (error.code === 'ENOENT') return undefined;
      throw error;
    });
    if (found?.size === size) return;
    await sleep(50);
  }
  throw new Error(`${file} did not appear within 10 s`);
}

async function fill(file, sizeMib) {
  const out = [`of=${file}`, 'bs=1M', `count=${sizeMib}`, 'conv=notrunc,fsync', 'status=none'];
  await command('dd', 'if=/dev/urandom', ...out);
}

function randomPlaces(sizeMib, bytes) {
  const units = Math.floor((sizeMib * MiB) / bytes);
  return Array.from({ length: WRITES_A_LAYER }, () => [
    Math.floor(Math.random() * units) * bytes,
    bytes,
  ]);
}

export async function scatter(file, sizeMib, bytes) {
  const handle = await open(file, 'r+');
  const data = Buffer.alloc(bytes, 0xa5);
  for (const [offset] of randomPlaces(sizeMib, bytes)) await handle.write(data, 0, bytes, offset);
  await handle.close();
}

async function writeByQemu(image, ranges) {
  const words = ranges.flatMap(([offset, length]) => ['-c', `write -P 0xa5 ${offset} ${length}`]);
  await command('qemu-io', '-f', 'qcow2', ...words, image);
}
